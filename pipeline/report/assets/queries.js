// The data of the table of queries: read, filtered, sorted, as CSV. Nothing here touches the page.
const Queries = (() => {
  // Equal for texts that differ only in case, accents, or width. A Japanese voicing mark is no accent.
  const fold = (text) =>
    /^[\x00-\x7f]*$/.test(text)
      ? text.toLowerCase()
      : text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").normalize("NFC").toUpperCase().toLowerCase();
  const collator = new Intl.Collator("en"); // not the reader's language: a link shows all the same

  // Return a locale's data as they are embedded, with `rows` for its queries.
  const parse = (json) => {
    const data = JSON.parse(json);
    data.rows = data.queries.map(([id, text, values, lists, kinds, exact, missed]) => {
      const keys = {};
      data.systems.forEach((system, place) => { keys[system] = values[place][0]; });
      const firsts = Object.values(keys);
      const known = firsts.every((value) => value !== null);
      keys.apart = known ? Math.max(...firsts) - Math.min(...firsts) : null;
      return { data, id, key: `${data.locale}/${id}`, text, values, lists, kinds, exact, missed, keys, folded: null };
    });
    return data;
  };

  // Return the folded title and id of each product, made when they are first looked for.
  const foldedProducts = (data) => {
    data.folded ??= data.products.map(([id, title]) => fold(`${title ?? ""}\n${id}`));
    return data.folded;
  };

  // Return the rows of which the text and id, or else one product's title and id, hold each word;
  // `byText` of a row says which of the two.
  const filter = (rows, text) => {
    const words = fold(text).split(/\s+/).filter(Boolean);
    const holdsAll = (folded) => words.every((word) => folded.includes(word));
    const holding = new Map();
    const productsOf = (data) => {
      if (!holding.has(data)) holding.set(data, foldedProducts(data).map(holdsAll));
      return holding.get(data);
    };
    return rows.filter((row) => {
      if (words.length) row.folded ??= fold(`${row.text}\n${row.id}`);
      row.byText = !words.length || holdsAll(row.folded);
      if (row.byText) return true;
      const products = productsOf(row.data);
      return (
        row.lists.some((ranked) => ranked.some((product, at) => at % 2 === 0 && products[product])) ||
        row.missed.some(([product]) => products[product])
      );
    });
  };

  // Return the number of a slice and of its value, or null where a locale does not have them.
  const find = (data, slice, value) => {
    const kind = data.kinds.findIndex(([name]) => name === slice);
    const place = kind < 0 ? -1 : data.kinds[kind][1].indexOf(value);
    return place < 0 ? null : { kind, place };
  };
  const inSlice = (data, slice, value) => {
    const wanted = find(data, slice, value);
    return wanted ? data.rows.filter(({ kinds }) => kinds[wanted.kind] === wanted.place) : [];
  };

  // Sort rows in place. The order of locales and ids decides between equals.
  const sort = (rows, key, falling) => {
    const sign = falling ? -1 : 1;
    if (key === "query") return rows.sort((a, b) => sign * collator.compare(a.text, b.text));
    const empty = (row) => (row.keys[key] ?? null) === null;
    return rows.sort(
      (a, b) =>
        empty(a) - empty(b) || // undefined values stay last
        (empty(a) ? 0 : sign * (a.keys[key] - b.keys[key])),
    );
  };

  // A text that a spreadsheet could take for a formula gets an apostrophe, as report/plots.py does.
  const asText = (text) => (/^([\t\r\n]|\s*[=+\-@＝＋－＠])/.test(text) ? `'${text}` : text);

  // Return rows as CSV: numbers as they are in the data, and nothing for one that is undefined.
  const csv = (rows, systems) => {
    const { measures } = rows[0].data;
    const quote = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
    const named = systems.flatMap((system) => measures.map((measure) => `${system}.${measure}`));
    const lines = rows.map(({ data, id, text, values, keys }) => {
      const numbers = systems.flatMap((system) => {
        const place = data.systems.indexOf(system);
        return measures.map((_, measure) => values[place]?.[measure] ?? "");
      });
      const apart = keys.apart === null ? "" : Number(keys.apart.toFixed(5));
      return [asText(data.locale), id, asText(text), ...numbers, apart];
    });
    const table = [["locale", "query_id", "query", ...named, "apart"], ...lines];
    return table.map((line) => line.map((cell) => quote(String(cell))).join(",") + "\r\n").join("");
  };

  return { parse, filter, find, inSlice, sort, csv };
})();
