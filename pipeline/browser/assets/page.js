// The page: no module, and in old words, so that an old browser can say that it is one.
(function () {
  "use strict";

  var MODULES = ["worker.js", "files.js", "search.js", "text.js", "vendor/onnxruntime.js", "vendor/tokenizers.js"];
  var form = document.getElementById("form");
  var query = document.getElementById("query");
  var brand = document.getElementById("brand");
  var brandLabel = document.getElementById("brand-label");
  var status = document.getElementById("status");
  var hits = document.getElementById("hits");
  var number = 0;
  var ready = false;
  var failed = false;
  var worker = null;

  function say(text, wrong) {
    status.textContent = text;
    status.className = wrong ? "wrong" : "";
  }

  function fail(text) {
    failed = true;
    hits.textContent = "";
    say(text, true);
  }

  function lacking() {
    if (location.protocol === "file:") {
      return "A browser does not load this page from a file. Serve its folder: python -m http.server";
    }
    if (!window.Worker) return "This browser has no Worker, which the search runs in. Use a newer browser.";
    if (!window.WebAssembly || !window.BigInt64Array) return "This browser has no WebAssembly, which the model runs in. Use a newer browser.";
    if (!window.DecompressionStream || !window.URLSearchParams) return "This browser is too old for this page. Use one of 2023 or later.";
    return "";
  }

  function add(parent, tag, name, text) {
    var made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    parent.appendChild(made);
  }

  function show(data) {
    var kept = brand.value;
    hits.textContent = "";
    data.hits.forEach(function (hit, at) {
      var item = document.createElement("li");
      item.setAttribute("data-id", hit.id);
      add(item, "p", "rank", String(at + 1));
      add(item, "p", "title", hit.title);
      add(item, "p", "score", hit.score.toFixed(4));
      add(item, "p", "about", hit.brand ? hit.brand + " · " + hit.id : hit.id);
      hits.appendChild(item);
    });
    if (!kept) offer(data.brands);
    var time = Math.round(data.milliseconds) + " ms";
    if (!data.hits.length) say("Nothing of this brand was found.", false);
    else say("The first " + data.hits.length + " of " + data.products + " products, in " + time + (data.exact ? "." : ". Their order is that of the compressed vectors: this server has no range requests."), false);
  }

  function offer(brands) {
    brands.sort(function (a, b) { return b[1] - a[1] || (a[0] < b[0] ? -1 : 1); });
    brand.textContent = "";
    brand.appendChild(new Option("any", ""));
    brands.forEach(function (each) { brand.appendChild(new Option(each[0] + " (" + each[1] + ")", each[0])); });
    brand.hidden = brandLabel.hidden = !brands.length;
  }

  function search() {
    if (failed || !ready) return;
    number += 1;
    say("Searching…", false);
    worker.postMessage({ number: number, text: query.value, brand: brand.value });
  }

  function fromAddress() {
    number += 1; // an answer that comes now is of another address
    var asked = new URLSearchParams(location.search);
    var wanted = asked.get("brand") || "";
    query.value = asked.get("q") || "";
    brand.textContent = "";
    brand.appendChild(new Option("any", ""));
    if (wanted) brand.appendChild(new Option(wanted, wanted, true, true));
    brand.hidden = brandLabel.hidden = !wanted;
    hits.textContent = "";
    if (query.value) search();
    else if (ready) say("Type a query.", false);
  }

  function toAddress() {
    var asked = new URLSearchParams();
    if (query.value) asked.set("q", query.value);
    if (brand.value) asked.set("brand", brand.value);
    history.pushState(null, "", "?" + asked);
    search();
  }

  // A worker that cannot be loaded does not say why: a wrong type is the usual reason.
  function explain() {
    var checks = MODULES.map(function (name) {
      return fetch(name, { method: "HEAD" }).then(function (answer) {
        var type = answer.headers.get("Content-Type") || "no type";
        if (!answer.ok) return name + " is missing (the server answers " + answer.status + "). Copy the whole folder to the server again.";
        if (!/javascript|ecmascript/.test(type)) return "The server sends " + name + " as " + type + ", and browsers run only text/javascript. Correct the server's types.";
        return "";
      }, function () { return name + " cannot be fetched: the server does not answer. Try again."; });
    });
    Promise.all(checks).then(function (found) {
      fail(found.filter(Boolean)[0] || "The search cannot start in this browser. Use one of 2023 or later.");
    });
  }

  function listen(event) {
    var data = event.data;
    if (data.kind === "loading" && !failed) {
      say("Loading: " + (data.done / 1e6).toFixed(1) + " of " + (data.total / 1e6).toFixed(1) + " MB.", false);
    } else if (data.kind === "ready") {
      ready = true;
      if (data.language !== "any") hits.lang = data.language;
      say(data.products + " products (" + data.locale + "). Type a query.", false);
      if (query.value) search();
    } else if (data.kind === "failed") {
      if (data.number === 0) fail(data.text);
      else if (data.number === number) { hits.textContent = ""; say(data.text, true); }
    } else if (data.number === number) {
      if (data.kind === "empty") { hits.textContent = ""; say("Type a query.", false); } else show(data);
    }
  }

  var reason = lacking();
  if (reason) { fail(reason); return; }
  say("Loading…", false);
  fromAddress();
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    brand.value = "";
    toAddress();
  });
  brand.addEventListener("change", toAddress);
  window.addEventListener("popstate", fromAddress);
  try {
    worker = new Worker("worker.js", { type: "module" });
  } catch (error) {
    explain();
    return;
  }
  worker.onmessage = listen;
  worker.onerror = function (event) {
    event.preventDefault();
    if (ready) say("The search failed: " + (event.message || "the browser does not say why") + ". Load the page again.", true);
    else if (!failed) explain();
  };
})();
