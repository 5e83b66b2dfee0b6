// Search over product-quantised vectors. Asymmetric distance computation: Jégou, Douze and Schmid,
// "Product quantization for nearest neighbor search" (2011).

const CODEWORDS = 256;

// Each codeword's inner product with the query's part: Float32Array [subvectors * 256].
export function scoresOfCodewords(query, codebook, subvectors) {
  const width = query.length / subvectors;
  const table = new Float32Array(subvectors * CODEWORDS);
  for (let at = 0; at < table.length; at += 1) {
    const part = Math.floor(at / CODEWORDS) * width;
    let sum = 0;
    for (let i = 0; i < width; i += 1) sum += query[part + i] * codebook[at * width + i];
    table[at] = sum;
  }
  return table;
}

// The rows with the highest scores, the lower row first where scores are equal: a heap with the
// worst one at its root.
export class Best {
  constructor(size) {
    this.size = size;
    this.rows = [];
    this.scores = [];
  }

  // What a later row must pass.
  get least() {
    return this.rows.length < this.size ? -Infinity : this.scores[0];
  }

  add(row, score) {
    const { rows, scores, size } = this;
    let at = rows.length;
    if (at < size) {
      rows.push(row);
      scores.push(score);
      while (at > 0) {
        const above = (at - 1) >> 1;
        if (!this.#worse(at, above)) break;
        this.#swap(at, above);
        at = above;
      }
      return;
    }
    rows[0] = row;
    scores[0] = score;
    at = 0;
    for (;;) {
      let worst = at;
      for (const below of [2 * at + 1, 2 * at + 2]) {
        if (below < size && this.#worse(below, worst)) worst = below;
      }
      if (worst === at) return;
      this.#swap(at, worst);
      at = worst;
    }
  }

  sorted() {
    return sortHits(this.rows.map((row, at) => ({ row, score: this.scores[at] })));
  }

  #worse(a, b) {
    const { rows, scores } = this;
    return scores[a] < scores[b] || (scores[a] === scores[b] && rows[a] > rows[b]);
  }

  #swap(a, b) {
    for (const each of [this.rows, this.scores]) [each[a], each[b]] = [each[b], each[a]];
  }
}

export function sortHits(hits) {
  return hits.sort((a, b) => b.score - a.score || a.row - b.row);
}

// Put a tile's products into `best`. codes: Uint8Array [rows * subvectors]; first: the first row's
// number; keeps: which rows take part, or null for all.
export function scan(table, codes, subvectors, first, best, keeps) {
  const rows = codes.length / subvectors;
  let { least } = best;
  for (let row = 0, at = 0; row < rows; row += 1, at += subvectors) {
    if (keeps && !keeps(row)) continue;
    let score = 0;
    for (let part = 0; part < subvectors; part += 1) score += table[part * CODEWORDS + codes[at + part]];
    if (score > least) {
      best.add(first + row, score);
      least = best.least;
    }
  }
}

// The inner product of the query and a vector in 8 bits: int8 components, then a float32 scale.
export function scoreOf8Bits(query, bytes) {
  const codes = new Int8Array(bytes.buffer, bytes.byteOffset, query.length);
  const scale = new DataView(bytes.buffer, bytes.byteOffset + query.length, 4).getFloat32(0, true);
  let sum = 0;
  for (let i = 0; i < query.length; i += 1) sum += query[i] * codes[i];
  return sum * scale;
}
