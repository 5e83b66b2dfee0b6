// A query's text as the pipeline cleans it, for what people type: see docs/browser.md for the rest.

const MOST_CHARACTERS = 100000;

// What the C1 controls 0x80 to 0x9f are in Windows-1252; its letters and gaps are dropped.
const C1 = "€ ‚ „…†‡ˆ‰ ‹    ‘’“”•–—˜™ ›  ";

const CONTROLS = /[\x00-\x1f\x7f-\x9f\u2800]/g;
const INVISIBLE = /[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

function ofControl(char) {
  const code = char.charCodeAt(0);
  if (code === 0x85 || code === 0x2800) return " ";
  if (code >= 0x80) return C1[code - 0x80].trim();
  return (code >= 9 && code <= 13) || (code >= 28 && code <= 31) ? " " : "";
}

export function normalise(text) {
  let found = text.length > MOST_CHARACTERS ? Array.from(text).slice(0, MOST_CHARACTERS).join("") : text;
  found = found.replace(CONTROLS, ofControl).replace(INVISIBLE, "");
  found = found.normalize("NFKC").replace(/[\u2044\u2215]/g, "/");
  return found.replace(/\s+/g, " ").trim();
}

// The tokens of a text, cut as the pipeline cuts them. settings: the manifest's "encoder".
export function tokenise(tokenizer, text, settings) {
  const { before, after } = settings;
  const made = tokenizer.encode(settings.query_prefix + text, { add_special_tokens: false }).ids;
  const room = settings.max_tokens - before.length - after.length;
  return [...before, ...made.slice(0, room), ...after];
}
