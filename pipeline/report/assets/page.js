"use strict";
// The table of queries. Texts of the data only ever become text nodes.
(() => {
  const PAGE = 25;
  const byId = (id) => document.getElementById(id);

  // A locale's data are parsed when it is first looked at.
  const parsed = new Map();
  const dataOf = (locale) => {
    if (!parsed.has(locale)) {
      const data = JSON.parse(byId(`queries-of-${locale}`).textContent);
      data.rows = data.queries.map(([id, text, values, lists], place) => {
        const firsts = values.map((ofSystem) => ofSystem[0]);
        const known = firsts.every((value) => value !== null);
        const spread = known ? Math.max(...firsts) - Math.min(...firsts) : null;
        return { id, place, text, values, lists, folded: fold(text), keys: [...firsts, spread] };
      });
      parsed.set(locale, data);
    }
    return parsed.get(locale);
  };
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const collator = new Intl.Collator();

  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const number = (value) => (value === null ? "–" : value.toFixed(3));
  const foreign = (text, language) => make("bdi", { lang: language, dir: "auto" }, text);

  const state = { data: null, shown: [], sort: null, falling: true, page: 0 };

  const sorted = (rows) => {
    const { sort, falling } = state;
    const sign = falling ? -1 : 1;
    if (sort === "query") return rows.sort((a, b) => sign * collator.compare(a.text, b.text) || a.place - b.place);
    const empty = (row) => row.keys[sort] === null;
    return rows.sort(
      (a, b) =>
        empty(a) - empty(b) || // undefined values stay last
        (empty(a) ? 0 : sign * (a.keys[sort] - b.keys[sort])) ||
        a.place - b.place, // the order of their ids, which are strings
    );
  };

  const result = (rank, product, label) => {
    const [id, title] = product;
    const chip = make("span", { class: `chip chip-${label || "unjudged"}`, role: "img" }, label || "?");
    const words = { E: "Exact", S: "Substitute", C: "Complement", I: "Irrelevant", "": "not judged" };
    chip.setAttribute("aria-label", words[label]);
    chip.title = words[label];
    return make(
      "li", {},
      make("span", { class: "rank" }, String(rank)),
      chip,
      make(
        "span", { class: "product" },
        title ? foreign(title, state.data.language) : make("i", {}, "no title"),
        make("span", { class: "id" }, id),
      ),
    );
  };

  const detail = (row, id) => {
    const { systems, measures, products } = state.data;
    const lists = systems.map((system, place) => {
      const ranked = row.lists[place];
      const items = [];
      for (let at = 0; at < ranked.length; at += 2)
        items.push(result(at / 2 + 1, products[ranked[at]], ranked[at + 1]));
      const values = measures.map((measure, m) => `${measure}\u00a0${number(row.values[place][m])}`);
      return make(
        "section", {},
        make("h3", {}, system),
        make("p", { class: "facts" }, values.join(" · ")),
        items.length ? make("ol", { role: "list" }, ...items) : make("p", {}, "Nothing was retrieved."),
      );
    });
    return make(
      "tr", { class: "detail", id },
      make(
        "td", { colspan: String(systems.length + 2) },
        make("p", { class: "facts" }, `query_id ${row.id}`),
        make("div", { class: "lists" }, ...lists),
      ),
    );
  };

  const bodyRow = (row) => {
    const id = `detail-${row.id}`;
    const button = make(
      "button", { type: "button", "aria-expanded": "false" },
      foreign(row.text, state.data.language),
    );
    const cells = row.keys.map((value) => make("td", { class: "number" }, number(value)));
    const element = make("tr", {}, make("th", { scope: "row" }, button), ...cells);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) {
        byId(id).remove();
        button.removeAttribute("aria-controls");
      } else {
        element.after(detail(row, id));
        button.setAttribute("aria-controls", id);
      }
    });
    return element;
  };

  const draw = () => {
    const { shown, page } = state;
    const start = page * PAGE;
    const part = shown.slice(start, start + PAGE);
    byId("rows").replaceChildren(...part.map(bodyRow));
    const many = shown.length === 1 ? "query" : "queries";
    byId("status").textContent = shown.length
      ? `${start + 1} to ${start + part.length} of ${shown.length.toLocaleString("en")} ${many}`
      : "No query contains that.";
    byId("previous").setAttribute("aria-disabled", String(page === 0));
    byId("next").setAttribute("aria-disabled", String(start + PAGE >= shown.length));
    for (const header of byId("columns").children) {
      const on = header.dataset.key === String(state.sort);
      if (on) header.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
      header.querySelector(".arrow").textContent = on ? (state.falling ? " ↓" : " ↑") : "";
    }
  };

  const choose = () => {
    const wanted = fold(byId("filter").value.trim());
    state.shown = sorted(state.data.rows.filter((row) => row.folded.includes(wanted)));
    state.page = 0;
    draw();
  };

  const column = (key, name) => {
    const button = make("button", { type: "button" }, name, make("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      state.falling = state.sort === key ? !state.falling : key !== "query";
      state.sort = key;
      choose();
    });
    return make("th", { scope: "col", "data-key": String(key) }, button);
  };

  const show = (locale) => {
    state.data = dataOf(locale);
    const { systems, note } = state.data;
    state.sort = systems.length;
    state.falling = true;
    byId("columns").replaceChildren(
      column("query", "query"),
      ...systems.map((system, place) => column(place, system)),
      column(systems.length, "apart"),
    );
    byId("note").textContent = note;
    choose();
  };

  const turn = (step) => (event) => {
    if (event.currentTarget.getAttribute("aria-disabled") === "true") return;
    state.page += step;
    draw();
  };

  const locale = byId("locale");
  if (!locale.options.length) return;
  byId("browse").hidden = false;
  byId("needs-script").hidden = true;
  byId("browse").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("input", choose);
  locale.addEventListener("change", () => show(locale.value));
  byId("previous").addEventListener("click", turn(-1));
  byId("next").addEventListener("click", turn(1));
  show(locale.value);
})();
