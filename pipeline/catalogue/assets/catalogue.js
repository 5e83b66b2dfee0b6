"use strict";
// The map, and the filter of clusters. Texts of the data only become text nodes.
(() => {
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  const data = JSON.parse(byId("data").textContent);
  const canvas = byId("canvas");
  const svg = canvas.querySelector("svg");
  const points = byId("points");
  const tip = byId("tip");
  const chooser = byId("cluster");
  const whole = svg.viewBox.baseVal;
  const full = { x: 0, y: 0, width: whole.width, height: whole.height };
  let view = { ...full };
  let chosen = null; // the product that is pointed at

  const draw = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return parent.appendChild(element);
  };
  const colours = [...document.querySelectorAll("#groups .dot")].map((dot) => dot.style.background);
  const circles = data.x.map((x, i) =>
    draw("circle", { cx: x, cy: data.y[i], fill: colours[data.cluster[i]] }, points)
  );
  const ring = draw("circle", { class: "chosen", visibility: "hidden" }, svg);

  const shown = (i) => chooser.value === "" || data.cluster[i] === Number(chooser.value);
  const nameOf = (cluster) => data.names[cluster] || `cluster ${cluster}`;

  const redraw = () => {
    const scale = view.width / full.width;
    const unit = Math.sqrt(scale);
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    circles.forEach((circle, i) => {
      circle.setAttribute("r", 3.5 * unit);
      circle.setAttribute("stroke-width", 0.8 * unit);
      circle.setAttribute("visibility", shown(i) ? "visible" : "hidden");
    });
    for (const group of svg.querySelectorAll(".wide, .narrow")) {
      const size = group.classList.contains("wide") ? 15 : 36;
      group.style.fontSize = `${size * scale}px`;
      group.style.strokeWidth = `${size * scale * 0.25}px`;
      group.style.visibility = chooser.value === "" ? "visible" : "hidden";
    }
    byId("picture").classList.toggle("faint", chooser.value !== "");
    ring.setAttribute("r", 7 * unit);
    ring.setAttribute("stroke-width", 2 * unit);
    byId("farther").disabled = byId("whole").disabled = view.width >= full.width;
    point(chosen);
  };

  const point = (i) => {
    chosen = i !== null && shown(i) ? i : null;
    ring.setAttribute("visibility", chosen === null ? "hidden" : "visible");
    tip.hidden = chosen === null;
    if (chosen === null) return;
    ring.setAttribute("cx", data.x[i]);
    ring.setAttribute("cy", data.y[i]);
    const small = document.createElement("small");
    small.textContent = nameOf(data.cluster[i]);
    const title = document.createElement("bdi");
    title.textContent = data.title[i];
    tip.replaceChildren(title, small);
    const spot = circles[i].getBoundingClientRect();
    const box = canvas.getBoundingClientRect();
    const left = spot.left + spot.width / 2 - box.left;
    const top = spot.top + spot.height / 2 - box.top;
    const inside = left >= 0 && left <= box.width && top >= 0 && top <= box.height;
    tip.hidden = !inside;
    tip.style.left = `${Math.max(0, Math.min(left - tip.offsetWidth / 2, box.width - tip.offsetWidth))}px`;
    tip.style.top = top > tip.offsetHeight + 16 ? `${top - tip.offsetHeight - 12}px` : `${top + 14}px`;
  };

  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [at.x, at.y];
  };
  const nearest = (x, y, most, allowed) => {
    let best = null;
    let least = most * most;
    for (let i = 0; i < data.x.length; i += 1) {
      const away = (data.x[i] - x) ** 2 + (data.y[i] - y) ** 2;
      if (away < least && shown(i) && (!allowed || allowed(i))) [best, least] = [i, away];
    }
    return best;
  };

  const look = (x, y, width) => {
    view.width = Math.min(full.width, Math.max(full.width / 16, width));
    view.height = (view.width / full.width) * full.height;
    view.x = Math.min(Math.max(0, x - view.width / 2), full.width - view.width);
    view.y = Math.min(Math.max(0, y - view.height / 2), full.height - view.height);
    redraw();
  };
  const zoom = (factor) => {
    const [x, y] =
      chosen === null
        ? [view.x + view.width / 2, view.y + view.height / 2]
        : [data.x[chosen], data.y[chosen]];
    look(x, y, view.width * factor);
  };

  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && view.width < full.width) drag = place(event);
  });
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag) {
      look(view.x + view.width / 2 + drag[0] - x, view.y + view.height / 2 + drag[1] - y, view.width);
    } else {
      point(nearest(x, y, view.width * 0.025));
    }
  });
  addEventListener("pointerup", () => { drag = null; });
  svg.addEventListener("click", (event) => {
    const [x, y] = place(event);
    point(nearest(x, y, view.width * 0.05));
  });
  svg.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) point(null); });
  svg.addEventListener("dblclick", (event) => { const [x, y] = place(event); look(x, y, view.width / 2); });

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) {
      const [x, y] =
        chosen === null
          ? [view.x + view.width / 2, view.y + view.height / 2]
          : [data.x[chosen], data.y[chosen]];
      const ahead = (i) => {
        const [right, down] = [data.x[i] - x, data.y[i] - y];
        const along = right * step[0] + down * step[1];
        return i !== chosen && along > 0 && along >= Math.abs(right * step[1] + down * step[0]);
      };
      const next = nearest(x, y, Infinity, chosen === null ? null : ahead);
      if (next !== null) {
        point(next);
        byId("said").textContent = `${data.title[next]}, ${nameOf(data.cluster[next])}`;
        const [nx, ny] = [data.x[next], data.y[next]];
        if (nx < view.x || nx > view.x + view.width || ny < view.y || ny > view.y + view.height)
          look(nx, ny, view.width);
      }
    } else if (event.key === "+") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "Escape") { point(null); look(0, 0, full.width); }
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => point(null));
  // An application gets the arrow keys of a screen reader; the map in it stays a picture.
  for (const [name, value] of Object.entries({
    role: "application", tabindex: "0", "aria-label": "Products on the map", "aria-describedby": "how",
  })) canvas.setAttribute(name, value);

  byId("closer").addEventListener("click", () => zoom(0.5));
  byId("farther").addEventListener("click", () => zoom(2));
  byId("whole").addEventListener("click", () => look(0, 0, full.width));
  // Shows the chosen cluster, without the few products that are far from the others.
  const lookAtChosen = () => {
    point(null);
    const members = circles.map((_, i) => i).filter(shown);
    if (chooser.value === "" || !members.length) return look(0, 0, full.width);
    const span = (values) => {
      const sorted = members.map((i) => values[i]).sort((a, b) => a - b);
      return [0.1, 0.9].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
    };
    const [[left, right], [top, bottom]] = [span(data.x), span(data.y)];
    const wide = Math.max(right - left, ((bottom - top) * full.width) / full.height);
    return look((left + right) / 2, (top + bottom) / 2, Math.max(full.width / 4, 1.6 * wide));
  };
  chooser.addEventListener("change", lookAtChosen);
  for (const button of document.querySelectorAll(".show")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      chooser.value = button.dataset.cluster;
      lookAtChosen();
      byId("map").scrollIntoView();
      canvas.focus({ preventScroll: true });
    });
  }

  const groups = [...byId("groups").children];
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const texts = groups.map((group) => fold(group.textContent));
  const filter = byId("filter");
  const applyFilter = () => {
    const wanted = fold(filter.value.trim());
    let left = 0;
    groups.forEach((group, i) => {
      group.hidden = !texts[i].includes(wanted);
      left += !group.hidden;
    });
    byId("found").textContent = wanted ? `${left} of ${groups.length} clusters` : "";
  };
  filter.addEventListener("input", applyFilter);
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("submit", (event) => event.preventDefault());

  for (const id of ["controls", "search", "how"]) byId(id).hidden = false;
  redraw();
})();
