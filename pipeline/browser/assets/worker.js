// Loads everything once, then answers queries: {number, text, brand} in, {kind, ...} out.

import * as ort from "./vendor/onnxruntime.js";
import { Tokenizer } from "./vendor/tokenizers.js";
import { Refused, read, readManifest, readPacked, readRange } from "./files.js";
import { Best, scan, scoreOf8Bits, scoresOfCodewords, sortHits } from "./search.js";
import { normalise, tokenise } from "./text.js";

const SHOWN = 10;
const MOST_WHOLE = 64e6; // bytes of 8-bit vectors that are fetched whole where ranges do not work
const ALWAYS_WHOLE = 1e6; // bytes that are not worth ranges
const MOST_GAP = 16384; // bytes between two rows that are fetched in one range

let loading = null;
let newest = 0;
let ranges = null; // whether the server answers range requests; null before the first one
const whole = new Map(); // tiles of 8-bit vectors and titles, by name
const tiles = new Map(); // the names of all tiles, by what comes before the hash

function tile(name, number) {
  const start = `${name}-${String(number).padStart(5, "0")}`;
  return tiles.get(start) ?? start;
}

async function load() {
  const manifest = await readManifest();
  for (const name of Object.keys(manifest.files)) tiles.set(name.replace(/-[0-9a-f]{12}\.bin$/, ""), name);
  const names = ["vendor/onnxruntime.wasm", "model.onnx", "tokenizer.json", "codebook.bin"];
  const length = Math.ceil(manifest.products / manifest.rows.codes);
  const numbers = Array.from({ length }, (_, number) => number);
  const listed = [...names, ...numbers.map((number) => tile("codes", number))];
  let done = 0;
  const total = listed.reduce((sum, name) => sum + (manifest.files[name]?.bytes ?? 0), 0);
  const get = async (name) => {
    const found = await read(manifest, name);
    done += found.byteLength;
    postMessage({ kind: "loading", done, total });
    return found;
  };
  const [wasm, model, tokenizer, codebook, ...codes] = await Promise.all(listed.map(get));
  const brands = manifest.brands ? await readPacked(manifest, "brands.bin") : [];
  const brandTiles = manifest.brands
    ? await Promise.all(numbers.map(async (number) => new Uint32Array(await read(manifest, tile("brands", number)))))
    : [];
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = wasm; // as bytes: neither an address nor a type of the server counts
  let session;
  try {
    session = await ort.InferenceSession.create(model, {
      executionProviders: ["wasm"],
      logSeverityLevel: 3,
      extra: { session: { disable_quant_qdq: "1" } }, // else activations are rounded to 8 bits
    });
  } catch (error) {
    throw new Refused(`This browser cannot run the model (${error.message}). Use a newer browser.`);
  }
  const parsed = JSON.parse(new TextDecoder().decode(tokenizer));
  return {
    manifest, session, brands, brandTiles,
    tokenizer: new Tokenizer(parsed, {}),
    codebook: new Float32Array(codebook),
    codes: codes.map((each) => new Uint8Array(each)),
  };
}

async function encode(loaded, text) {
  const ids = tokenise(loaded.tokenizer, text, loaded.manifest.encoder);
  const shape = [1, ids.length];
  const tensor = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
  const made = await loaded.session.run({ ids: tensor(ids), mask: tensor(ids.map(() => 1)) });
  return made.vectors.data;
}

async function search(number, asked) {
  const loaded = await loading;
  const { manifest, brands, brandTiles } = loaded;
  const started = performance.now();
  const text = normalise(asked.text);
  if (!text) {
    postMessage({ kind: "empty", number });
    return;
  }
  const brand = asked.brand ? brands.indexOf(asked.brand) + 1 : 0;
  if (asked.brand && !brand) {
    postMessage({ kind: "results", number, hits: [], brands: [], milliseconds: 0, products: manifest.products, exact: true });
    return;
  }
  const query = await encode(loaded, text);
  const table = scoresOfCodewords(query, loaded.codebook, manifest.subvectors);
  const best = new Best(manifest.rescored);
  for (const [place, codes] of loaded.codes.entries()) {
    const of = brandTiles[place];
    const keeps = brand ? (row) => of[row] === brand : null;
    scan(table, codes, manifest.subvectors, place * manifest.rows.codes, best, keeps);
    await new Promise((resume) => setTimeout(resume)); // a newer query may have come
    if (number !== newest) return;
  }
  let hits = best.sorted();
  // Most of the first ten stay there: their titles come while the vectors do.
  for (const hit of hits.slice(0, SHOWN)) readTitles(manifest, Math.floor(hit.row / manifest.rows.titles));
  const exact = await rescore(manifest, query, hits);
  hits = sortHits(hits);
  const counts = new Map();
  for (const hit of hits) {
    const at = brandTiles.length ? brandTiles[Math.floor(hit.row / manifest.rows.codes)][hit.row % manifest.rows.codes] : 0;
    hit.brand = at ? brands[at - 1] : "";
    if (at) counts.set(hit.brand, (counts.get(hit.brand) ?? 0) + 1);
  }
  const shown = await Promise.all(hits.slice(0, SHOWN).map(async (hit) => {
    const rows = manifest.rows.titles;
    const titles = await readTitles(manifest, Math.floor(hit.row / rows));
    const [id, title] = titles[hit.row % rows];
    return { ...hit, id, title };
  }));
  const milliseconds = performance.now() - started;
  if (number !== newest) return;
  postMessage({
    kind: "results", number, hits: shown, brands: [...counts], milliseconds, exact,
    products: manifest.products,
  });
}

function once(name, make) {
  if (!whole.has(name)) {
    const made = make();
    whole.set(name, made);
    made.catch(() => whole.delete(name));
  }
  return whole.get(name);
}

function readTitles(manifest, number) {
  const name = tile("titles", number);
  return once(name, () => readPacked(manifest, name));
}

// Give the hits the scores of the 8-bit vectors; false where those would be too much to fetch.
async function rescore(manifest, query, hits) {
  const width = manifest.dimension + 4;
  const total = manifest.products * width;
  const byTile = new Map();
  for (const hit of [...hits].sort((a, b) => a.row - b.row)) {
    const number = Math.floor(hit.row / manifest.rows.vectors);
    if (!byTile.has(number)) byTile.set(number, []);
    byTile.get(number).push({ hit, start: (hit.row % manifest.rows.vectors) * width });
  }
  const scored = [];
  const jobs = [...byTile].flatMap(([number, wanted]) => {
    const name = tile("vectors", number);
    const runs = [];
    for (const each of wanted) {
      const run = runs.at(-1);
      if (run && each.start - run.at(-1).start <= MOST_GAP) run.push(each);
      else runs.push([each]);
    }
    return runs.map((run) => async () => {
      const first = run[0].start;
      const stop = run.at(-1).start + width;
      const { bytes, offset } = await vectorBytes(manifest, name, first, stop, total);
      if (!bytes) return false;
      for (const { hit, start } of run) {
        scored.push([hit, scoreOf8Bits(query, new Uint8Array(bytes, start - offset, width))]);
      }
      return true;
    });
  });
  if (ranges === null && jobs.length && !(await jobs.shift()())) return false;
  if ((await Promise.all(jobs.map((job) => job()))).includes(false)) return false;
  for (const [hit, score] of scored) hit.score = score;
  return true;
}

async function vectorBytes(manifest, name, start, stop, total) {
  if (whole.has(name)) return { bytes: await whole.get(name), offset: 0 };
  if (ranges !== false && total > ALWAYS_WHOLE) {
    const found = await readRange(manifest, name, start, stop);
    if (found.part) {
      ranges = true;
      return { bytes: found.part, offset: start };
    }
    ranges = false;
    whole.set(name, Promise.resolve(found.whole));
  }
  if (total > MOST_WHOLE) return { bytes: null, offset: 0 };
  return { bytes: await once(name, () => read(manifest, name)), offset: 0 };
}

function report(error, number) {
  const text = error instanceof Refused ? error.message : `The search failed: ${error.message}`;
  postMessage({ kind: "failed", text, number });
}

addEventListener("message", ({ data }) => {
  newest = data.number;
  search(data.number, data).catch((error) => report(error, data.number));
});

loading = load();
loading.then(
  ({ manifest }) => postMessage({ kind: "ready", locale: manifest.locale, language: manifest.language, products: manifest.products }),
  (error) => report(error, 0),
);
