// A query's text as the pipeline cleans it, for what people type: see docs/browser.md for the rest.

const MOST_CHARACTERS = 100000;

// What C1 controls are in Windows-1252; its letters and gaps are dropped.
const WINDOWS_1252 = {
  0x80: "€", 0x82: "‚", 0x84: "„", 0x85: " ", 0x86: "†", 0x87: "‡", 0x89: "‰", 0x8b: "‹",
  0x91: "‘", 0x92: "’", 0x93: "“", 0x94: "”", 0x95: "•", 0x96: "–", 0x97: "—", 0x98: " ",
  0x99: "™", 0x9b: "›", 0x2800: " ",
};

const CONTROLS = /[\x00-\x1f\x7f-\x9f\u2800]/g;
const TRADE_MARKS = /[™℠]+(?=([\p{L}\p{N}])?)/gu;
const INVISIBLE = /[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

function ofControl(char) {
  const code = char.charCodeAt(0);
  if (code >= 0x80) return WINDOWS_1252[code] ?? "";
  return (code >= 9 && code <= 13) || (code >= 28 && code <= 31) ? " " : "";
}

export function normalise(text) {
  let found = text.length > MOST_CHARACTERS ? Array.from(text).slice(0, MOST_CHARACTERS).join("") : text;
  found = found.replace(CONTROLS, ofControl).replace(INVISIBLE, "");
  found = found.replace(TRADE_MARKS, (_, next) => (next ? " " : ""));
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
