// The files of this folder, each checked against the manifest: its size, and its SHA-256 where the
// browser computes one (https and localhost). A part of a file has no hash of its own: it is of the
// right tile because a tile's name has the hash, but damage within it is not seen.

const AGAIN = "Load the page again. If that does not help, copy the whole folder to the server again.";

export class Refused extends Error {}

export async function readManifest() {
  const answer = await ask("manifest.json", { cache: "no-cache" });
  try {
    const manifest = await answer.json();
    if (manifest.made_by !== "pipeline.browser" || manifest.schema !== 1) throw new Error("other");
    return manifest;
  } catch {
    throw new Refused(`manifest.json is damaged or of another version. ${AGAIN}`);
  }
}

// The whole of a file, ArrayBuffer.
export async function read(manifest, name) {
  return check(manifest, name, await bytesOf(name, await ask(address(manifest, name))));
}

// What JSON packed by gzip holds.
export async function readPacked(manifest, name) {
  const packed = new Blob([await read(manifest, name)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).json();
}

// Bytes from start to stop (exclusive) of a file: {part}, or {whole} from a server without ranges.
export async function readRange(manifest, name, start, stop) {
  const headers = { Range: `bytes=${start}-${stop - 1}` };
  // Browsers let only one request at a time use the cache's entry of an address.
  const answer = await ask(address(manifest, name), { headers, cache: "no-store" });
  const found = await bytesOf(name, answer);
  if (answer.status !== 206) return { whole: await check(manifest, name, found) };
  const expected = `bytes ${start}-${stop - 1}/${manifest.files[name].bytes}`;
  if (answer.headers.get("Content-Range") !== expected || found.byteLength !== stop - start) {
    throw new Refused(`${name} is cut off or not of this folder. ${AGAIN}`);
  }
  return { part: found };
}

// The hash in the address keeps a browser from using a file of an earlier folder.
function address(manifest, name) {
  const about = manifest.files[name];
  if (!about) throw new Refused(`manifest.json does not list ${name}. ${AGAIN}`);
  return `${name}?${about.sha256.slice(0, 12)}`;
}

async function ask(url, settings) {
  const name = url.split("?")[0];
  let answer;
  try {
    answer = await fetch(url, settings);
  } catch {
    throw new Refused(`${name} cannot be fetched: the server does not answer. Try again.`);
  }
  if (answer.status === 416) throw new Refused(`${name} is cut off. ${AGAIN}`);
  if (!answer.ok) throw new Refused(`${name} is missing (the server answers ${answer.status}). ${AGAIN}`);
  return answer;
}

async function bytesOf(name, answer) {
  try {
    return await answer.arrayBuffer();
  } catch {
    throw new Refused(`${name} broke off while it was fetched. Try again.`);
  }
}

async function check(manifest, name, found) {
  const { bytes, sha256 } = manifest.files[name];
  if (found.byteLength !== bytes) {
    throw new Refused(`${name} must have ${bytes} bytes (found ${found.byteLength}): it is cut off or another file. ${AGAIN}`);
  }
  if (!globalThis.crypto?.subtle) return found;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", found));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== sha256) throw new Refused(`${name} is damaged: its hash is not the manifest's. ${AGAIN}`);
  return found;
}
