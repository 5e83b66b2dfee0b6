"use strict";
// The table of queries. Texts of the data only ever become text nodes. The part of the address after
// the # says what the table shows, so that it can be sent to somebody.
(() => {
  const PAGE = 25;
  const KEYS = ["locale", "filter", "slice", "value", "sort", "order", "page", "query"];
  const byId = (id) => document.getElementById(id);
  const select = byId("locale");
  const locales = [...select.options].map((option) => option.value).filter(Boolean);
  if (!locales.length) return;

  // A locale's data are parsed when it is first looked at.
  const parsed = new Map();
  const dataOf = (locale) => {
    if (!parsed.has(locale)) parsed.set(locale, Queries.parse(byId(`queries-of-${locale}`).textContent));
    return parsed.get(locale);
  };
  const datasets = () => (state.locale ? [state.locale] : locales).map(dataOf);
  const systemsOf = (all) => [...new Set(all.flatMap((data) => data.systems))];

  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const number = (value) => ((value ?? null) === null ? "–" : value.toFixed(3));
  const foreign = (text, { language }) => make("bdi", { lang: language, dir: "auto" }, text);
  const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

  const start = () => ({
    locale: locales.length === 1 ? locales[0] : "", filter: "", slice: "", value: "",
    sort: "apart", falling: true, query: "", page: 0,
  });
  let state = start();
  let shown = [];

  // Return what comes after the # for a state. What is as in the beginning is left out.
  const addressOf = (wanted) => {
    const usual = wanted.falling === (wanted.sort !== "query");
    const sort = wanted.sort === "apart" ? "" : wanted.sort;
    const order = usual ? "" : wanted.falling ? "descending" : "ascending";
    const given = { ...wanted, sort, order, page: wanted.page && wanted.page + 1 };
    return `#${new URLSearchParams(KEYS.filter((key) => given[key]).map((key) => [key, given[key]]))}`;
  };
  let waiting = 0;
  const remember = () => {
    clearTimeout(waiting); // a browser refuses to write the address at each key
    waiting = setTimeout(() => history.replaceState(null, "", addressOf(state)), 200);
  };

  const product = (data, place, ...more) => {
    const [id, title] = data.products[place];
    const named = title ? foreign(title, data) : make("i", {}, title === null ? "no text: no system can find it" : "no title");
    return make("span", { class: "product" }, named, make("span", { class: "id" }, id, ...more));
  };

  const result = (data, rank, place, label) => {
    const chip = make("span", { class: `chip chip-${label || "unjudged"}`, role: "img" }, label || "?");
    const words = { E: "Exact", S: "Substitute", C: "Complement", I: "Irrelevant", "": "not judged" };
    chip.setAttribute("aria-label", words[label]);
    chip.title = words[label];
    return make("li", {}, make("span", { class: "rank" }, String(rank)), chip, product(data, place));
  };

  const missed = ({ data, exact, missed: products }) => {
    const { systems, results, depth } = data;
    const items = products.map(([place, ...ranks]) => {
      const places = systems.map((system, at) => `${system}\u00a0${ranks[at] || "–"}`);
      return make("li", {}, product(data, place, ` · ${places.join(" · ")}`));
    });
    let said = `${plural(exact, "product is", "products are")} Exact. At least one system has not these among its first ${results}; the numbers are their ranks, and – is not among the first ${depth.toLocaleString("en")}.`;
    if (!items.length) said = `Every system has ${exact === 1 ? "it" : `all ${exact}`} in its first ${results}.`;
    if (!exact) said = "No product is judged Exact.";
    return make(
      "section", { class: "missed" },
      make("h3", {}, "What should have been found"),
      make("p", { class: "facts" }, said),
      ...(items.length ? [make("ul", { role: "list" }, ...items)] : []),
    );
  };

  const detail = (row, id) => {
    const { data } = row;
    const lists = data.systems.map((system, place) => {
      const ranked = row.lists[place];
      const items = [];
      for (let at = 0; at < ranked.length; at += 2) items.push(result(data, at / 2 + 1, ranked[at], ranked[at + 1]));
      const values = data.measures.map((measure, m) => `${measure}\u00a0${number(row.values[place][m])}`);
      return make(
        "section", {},
        make("h3", {}, system),
        make("p", { class: "facts" }, values.join(" · ")),
        items.length ? make("ol", { role: "list" }, ...items) : make("p", {}, "Nothing was retrieved."),
      );
    });
    const kinds = data.kinds.map(([name, values], at) => `${name}: ${values[row.kinds[at]]}`);
    const link = make("a", { href: addressOf({ ...start(), locale: data.locale, query: row.key }) }, "Link to this query");
    const facts = [`${data.locale}, query_id ${row.id}`, ...kinds].join(" · ");
    return make(
      "tr", { class: "detail", id },
      make(
        "td", { colspan: String(byId("columns").children.length) },
        make("p", { class: "facts" }, `${facts} · `, link),
        make("div", { class: "lists" }, ...lists),
        missed(row),
      ),
    );
  };

  const bodyRow = (row, systems) => {
    const id = `detail-${row.data.locale}-${row.id}`;
    const tag = state.locale ? [] : [make("span", { class: "tag" }, row.data.locale)];
    const button = make("button", { type: "button", "aria-expanded": "false" }, ...tag, foreign(row.text, row.data));
    const cells = [...systems, "apart"].map((key) => make("td", { class: "number" }, number(row.keys[key])));
    const element = make("tr", {}, make("th", { scope: "row" }, button), ...cells);
    const toggle = () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) {
        byId(id).remove();
        button.removeAttribute("aria-controls");
      } else {
        element.after(detail(row, id));
        button.setAttribute("aria-controls", id);
      }
      return !open;
    };
    // A click on the button arrives here too. A row whose text is being selected stays as it is.
    element.addEventListener("click", (event) => {
      if (!button.contains(event.target) && !getSelection().isCollapsed) return;
      if (toggle()) state.query = row.key;
      else if (state.query === row.key) state.query = "";
      remember();
    });
    return { element, button, toggle };
  };

  // Draw the page of rows that the state names, and return its rows.
  const draw = () => {
    state.page = Math.min(state.page, Math.max(0, Math.ceil(shown.length / PAGE) - 1));
    const first = state.page * PAGE;
    const systems = systemsOf(datasets());
    const part = shown.slice(first, first + PAGE).map((row) => bodyRow(row, systems));
    byId("rows").replaceChildren(...part.map(({ element }) => element));
    const byText = shown.filter((row) => row.byText).length;
    const how = byText === shown.length ? "" : `: ${byText.toLocaleString("en")} by text or id, the others by a product`;
    byId("status").textContent = shown.length
      ? `${first + 1} to ${first + part.length} of ${plural(shown.length, "query", "queries")}${how}`
      : "No query contains that.";
    byId("previous").setAttribute("aria-disabled", String(state.page === 0));
    byId("next").setAttribute("aria-disabled", String(first + PAGE >= shown.length));
    byId("csv").setAttribute("aria-disabled", String(!shown.length));
    for (const header of byId("columns").children) {
      const on = header.dataset.key === state.sort;
      if (on) header.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
      header.querySelector(".arrow").textContent = on ? (state.falling ? " ↓" : " ↑") : "";
    }
    return part;
  };

  const column = (key) => {
    const button = make("button", { type: "button" }, key, make("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      state.falling = state.sort === key ? !state.falling : key !== "query";
      state.sort = key;
      change();
    });
    return make("th", { scope: "col", "data-key": key }, button);
  };

  // Show what the state asks for.
  const show = () => {
    const all = datasets();
    const systems = systemsOf(all);
    if (!["query", "apart", ...systems].includes(state.sort)) Object.assign(state, { sort: "apart", falling: true });
    select.value = state.locale;
    if (byId("filter").value !== state.filter) byId("filter").value = state.filter;
    byId("slice").hidden = !state.slice;
    byId("slice-name").textContent = `${state.slice}: ${state.value}`;
    byId("columns").replaceChildren(...["query", ...systems, "apart"].map(column));
    byId("note").textContent = all.map((data) => data.note).join(" ");
    const rows = all.flatMap((data) => (state.slice ? Queries.inSlice(data, state.slice, state.value) : data.rows));
    shown = Queries.sort(Queries.filter(rows, state.filter), state.sort, state.falling);
    draw();
  };
  let typed = 0;
  const change = (changed) => {
    clearTimeout(typed);
    Object.assign(state, { page: 0, query: "" }, changed);
    say([]);
    show();
    remember();
  };
  const say = (problems) => {
    byId("gone").replaceChildren(...problems.map((problem) => make("p", { class: "missing" }, problem)));
  };

  const gone = (key) => {
    const [locale, id] = key.split("/");
    if (!datasets().some((data) => data.locale === locale)) return `The link names no query of a locale that is shown: ${key}.`;
    const { rows, total } = dataOf(locale);
    return rows.length === total
      ? `The linked query is gone: these data have no query of ${locale} with the id ${id}.`
      : `The linked query ${id} is not on this page. The page has ${rows.length.toLocaleString("en")} of ${plural(total, "query", "queries")} of ${locale}; ${id} is one of the others, or is gone from the data.`;
  };

  // Show what the address asks for; say what of it this page does not have. An address without any
  // asks for the beginning. Return false, and change nothing, where it names a section of the page.
  const read = () => {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if (location.hash && !(location.hash.includes("=") && KEYS.some((key) => key in given))) return false;
    clearTimeout(typed);
    const problems = [];
    state = { ...start(), filter: given.filter ?? "" };
    if (locales.includes(given.locale)) state.locale = given.locale;
    else if (given.locale) problems.push(`This page has no locale ${given.locale}: all locales are shown.`);
    const all = datasets();
    if (["query", "apart", ...systemsOf(all)].includes(given.sort)) {
      state.sort = given.sort;
      state.falling = given.sort !== "query";
    } else if (given.sort) problems.push(`There is no column ${given.sort}: the queries are sorted by apart.`);
    if (given.order) state.falling = given.order !== "ascending";
    if (all.some((data) => Queries.find(data, given.slice, given.value))) Object.assign(state, { slice: given.slice, value: given.value });
    else if (given.slice) problems.push(`No query here is in the slice ${given.slice}: ${given.value ?? ""}. All queries are shown.`);
    if (given.page >= 1) state.page = Math.floor(given.page) - 1;
    show();
    if (location.hash) byId("queries").scrollIntoView();
    if (given.query) open(given.query, problems);
    say(problems);
    return true;
  };

  // Open a query, on its page of the table.
  const open = (key, problems) => {
    if (!datasets().some((data) => data.rows.some((row) => row.key === key))) {
      problems.push(gone(key));
      return;
    }
    const place = () => shown.findIndex((row) => row.key === key);
    if (place() < 0) {
      problems.push(`The linked query ${key} is not in what this link filters: all queries are shown.`);
      Object.assign(state, { filter: "", slice: "", value: "" });
      show();
    }
    Object.assign(state, { query: key, page: Math.floor(place() / PAGE) });
    const { element, button, toggle } = draw()[place() % PAGE];
    toggle();
    button.focus({ preventScroll: true });
    element.scrollIntoView();
  };

  const turn = (step) => (event) => {
    if (event.currentTarget.getAttribute("aria-disabled") === "true") return;
    state.page += step;
    state.query = "";
    draw();
    remember();
  };

  const download = (event) => {
    if (event.currentTarget.getAttribute("aria-disabled") === "true") return;
    // Spreadsheets read UTF-8 only after a byte order mark.
    const text = `\ufeff${Queries.csv(shown, systemsOf(datasets()))}`;
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    make("a", { href: url, download: `queries${state.locale && "-"}${state.locale}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  };

  byId("browse").hidden = false;
  byId("needs-script").hidden = true;
  byId("browse").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    clearTimeout(typed);
    typed = setTimeout(change, 150); // not at each key
  });
  select.addEventListener("change", () => change({ locale: select.value }));
  byId("all").addEventListener("click", () => {
    change({ slice: "", value: "" });
    byId("filter").focus();
  });
  byId("previous").addEventListener("click", turn(-1));
  byId("next").addEventListener("click", turn(1));
  byId("csv").addEventListener("click", download);
  for (const link of document.querySelectorAll("a[data-locale]"))
    link.setAttribute("href", addressOf({ ...start(), ...link.dataset }));
  addEventListener("hashchange", read);
  // A link to what the address says already changes nothing in the address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href*='=']");
    if (link && link.hash === location.hash) read();
  });
  if (!read()) show();
})();
