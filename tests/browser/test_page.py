"""The folder of `make browser` in a real browser: what it finds, and what it says of faults.

Every request to another host is refused. Needs npm, and chromium, chromium-browser or google-chrome
on the PATH; the tests skip where one is missing.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, Request, Response, expect

from bench.browser import grow
from bench.static_server import serve
from pipeline.browser import command, tiles
from pipeline.browser.onnx_model import OnnxEncoder
from pipeline.clean import stage as clean
from pipeline.core import layout
from pipeline.core.arrays import Ints, Matrix
from pipeline.demo import stage as demo
from pipeline.embed import stage as embed
from pipeline.encoders.tokens import Tokenizer
from pipeline.evaluate import judged_run
from pipeline.retrieve import neighbours
from pipeline.runs.inputs import read_judgements
from pipeline.sample import stage as sample
from pipeline.text.normalise import normalise
from pipeline.tradeoff.command import quality
from tests.helpers.artefacts import ROOT, params
from tests.helpers.axe import find_faults
from tests.helpers.chromium import needs_browser, needs_npm

pytestmark = [pytest.mark.slow, pytest.mark.weights, needs_browser, needs_npm]

GROWN = 3_000
"""Products whose 8-bit vectors are fetched by ranges, in several tiles."""

ASKED = 50
"""Judged queries that are asked on the page."""

UNUSUAL = {".wasm": "text/plain", ".onnx": "text/html", ".bin": "text/plain"}
"""Types of files that a server may send, and the page takes."""

STATUS = "#status"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the us demo, in a project folder where its stages have run."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("PIPELINE_CACHE", str(ROOT / ".cache"))
        patch.setenv("PIPELINE_CACHE", cache)
        patch.chdir(tmp_path_factory.mktemp("project"))
        given = params()
        demo.demo(given)
        sample.sample(given)
        clean.clean(given, "us")
        embed.embed(given, "us")
        command.make_folder(given, "us", Path("out"), command.MOST_MEGABYTES)
        yield Path("out").absolute()


@contextmanager
def opened(browser: Browser, folder: Path, asked: str = "", **server: Any) -> Iterator[Page]:
    """Serve a folder and open its page; no request may leave the host, no script may fail."""
    with ExitStack() as stack:
        address = stack.enter_context(serve(folder, **server))
        context = stack.enter_context(browser.new_context())
        wrong: list[str] = []

        def asked_for(request: Request) -> None:
            if not request.url.startswith((address, "data:")):
                wrong.append(request.url)

        context.on("request", asked_for)
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{address}{asked}")
        yield page
        assert wrong == []


@pytest.fixture(scope="module")
def page(browser: Browser, made: Path) -> Iterator[Page]:
    """The page of that folder, for tests that search on it: it takes seconds to load."""
    with opened(browser, made, types=UNUSUAL) as loaded:
        yield loaded


def search(page: Page, text: str) -> list[str]:
    """Return the ids of what the page shows for a query."""
    page.fill("#query", text)
    page.press("#query", "Enter")
    expect(page.locator(STATUS)).to_have_text(re.compile("^The first "), timeout=30_000)
    return shown(page)


def shown(page: Page) -> list[str]:
    ids: list[str] = page.locator("#hits li").evaluate_all(
        "items => items.map(item => item.dataset.id)"
    )
    return ids


def search_codes(folder: Path, queries: Matrix, depth: int = 10) -> Ints:
    """Return the rows that the same codes and 8-bit vectors give in NumPy, [queries, depth]."""
    manifest = json.loads((folder / "manifest.json").read_text())
    dimension, parts = manifest["dimension"], manifest["subvectors"]
    words = np.fromfile(folder / "codebook.bin", "<f4").reshape(parts, tiles.CODEWORDS, -1)
    codes = tiles.read_tiles(folder, "codes", parts)
    near = np.concatenate([words[part][codes[:, part]] for part in range(parts)], axis=1)
    exact = tiles.unpack_vectors(tiles.read_tiles(folder, "vectors", dimension + 4))
    found = []
    for query in queries:
        first = np.argsort(-(near @ query), kind="stable")[: manifest["rescored"]]
        first = np.sort(first)
        found.append(first[np.argsort(-(exact[first] @ query), kind="stable")[:depth]])
    return np.array(found, dtype=np.int64)


def keep_status(to: list[int], response: Response) -> None:
    to.append(response.status)


def overlap(found: list[list[str]], expected: list[list[str]]) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in pairs]))


def all_titles(folder: Path) -> list[list[str]]:
    held = sorted(folder.glob("titles-*.bin"))
    return [each for path in held for each in tiles.read_packed(path)]


def test_the_first_ten_are_those_of_python_and_as_good_as_exact_search(
    page: Page, made: Path
) -> None:
    files = layout.clean("us")
    texts = pq.read_table(files.queries)["text"].to_pylist()[:ASKED]
    ids = [product for product, _ in all_titles(made)]
    in_table = pq.read_table(files.products)["product_id"].to_pylist()
    assert sorted(ids) == sorted(in_table)
    found = [search(page, text) for text in texts]
    spec = params().encoder_of("us")
    ours = np.load(layout.embeddings("us").shard("queries", 0))[:ASKED]
    tokenizer = Tokenizer((made / "tokenizer.json").read_text(), "", spec.max_tokens, "minilm")
    theirs = OnnxEncoder(made / "model.onnx", 1)(tokenizer(texts))
    # Of the same query vectors, only ties in the last bits may differ; of ours, 8 bits count too.
    for vectors, least in ((theirs, 0.99), (ours, 0.95)):
        expected = [[ids[row] for row in rows] for rows in search_codes(made, vectors)]
        assert overlap(found, expected) >= least
    rows = np.array([[in_table.index(each) for each in of_query] for of_query in found])
    _, _, pairs = read_judgements("us")
    query_rows, codes, labels = (each[pairs[0] < len(texts)] for each in pairs)
    judgements = judged_run.Judgements.from_pairs(query_rows, codes, labels, len(texts))
    products = np.load(layout.embeddings("us").shard("products", 0))
    exact = neighbours.exact_codes([products], ours, 10, "cosine")
    drop = quality(exact, judgements)["ndcg"] - quality(rows, judgements)["ndcg"]
    assert abs(drop) <= 0.02


def test_the_page_reads_texts_as_the_pipeline_does(page: Page, made: Path) -> None:
    raw = pq.read_table(layout.sample("us").queries)["query"].to_pylist()
    raw += [
        "  two\tspaces\n",
        "Ｆｕｌｌ ｗｉｄｔｈ",
        "soft\xadhyphen\u200b",
        "\x93quoted\x94",
        "1⁄2\x00",
        "Kindle™ Fire™HD",
        "".join(map(chr, range(0x80, 0xA0))).replace("\x98", ""),
        "a" * 120_000,
    ]
    texts = pq.read_table(layout.clean("us").queries)["text"].to_pylist()
    cleaned = [normalise(each) for each in raw]
    assert [each for each in cleaned if each][: len(texts)] == texts
    spec = params().encoder_of("us")
    tokenizer = Tokenizer((made / "tokenizer.json").read_text(), "", spec.max_tokens, "minilm")
    texts += ["long words " * 400, "日本語 の café ÀÉ", "x" * 300, "it's -- a/b 3.5\" [MASK]"]
    read, ids = page.evaluate(
        """async ([raw, texts]) => {
            const { normalise, tokenise } = await import("./text.js");
            const { Tokenizer } = await import("./vendor/tokenizers.js");
            const get = async (name) => (await fetch(name)).json();
            const tokenizer = new Tokenizer(await get("tokenizer.json"), {});
            const settings = (await get("manifest.json")).encoder;
            const ids = texts.map((text) => tokenise(tokenizer, text, settings));
            return [raw.map(normalise), ids];
        }""",
        [raw, texts],
    )
    assert read == cleaned
    assert ids == [tokens.ids.tolist() for tokens in tokenizer(texts)]


def test_address_brand_keyboard_and_markup(browser: Browser, made: Path) -> None:
    with opened(browser, made, "?q=coffee+maker") as page:
        expect(page.locator("#hits li")).to_have_count(10, timeout=60_000)
        everything = shown(page)
        # By keyboard: from the box to the button to the brands.
        page.focus("#query")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "brand"
        page.keyboard.press("ArrowDown")
        brand = page.locator("#brand").input_value()
        assert brand
        expect(page.locator(STATUS)).to_have_text(re.compile("^The first "))
        for about in page.locator("#hits .about").all_inner_texts():
            assert about.startswith(f"{brand} · ")
        assert "brand=" in page.url
        page.go_back()
        expect(page.locator("#hits li").first).to_have_attribute("data-id", everything[0])
        expect(page.locator(STATUS)).to_have_text(re.compile("^The first 10 "))
        assert shown(page) == everything
        for text in ("<script>document.title='x'</script>", "🦊" * 5_000, "\x00", "日本"):
            page.fill("#query", text)
            page.press("#query", "Enter")
            expected = "Type a query" if text == "\x00" else "^The first 10 "
            expect(page.locator(STATUS)).to_have_text(re.compile(expected), timeout=30_000)
        assert page.title() == "Product search"
        page.goto(f"{page.url.partition('?')[0]}?q=mug&brand=nobody")
        expect(page.locator(STATUS)).to_have_text(
            "Nothing of this brand was found.", timeout=60_000
        )


LATE = """window.Worker = class extends Worker {
    set onmessage(listen) {
        super.onmessage = (event) => {
            if (event.data.kind === "results") window.answer = () => listen(event);
            else listen(event);
        };
    }
};"""
"""Results come when the test calls `answer`."""


def test_an_answer_that_comes_after_the_way_back_is_not_shown(browser: Browser, made: Path) -> None:
    with serve(made) as address, browser.new_context() as context:
        context.add_init_script(LATE)
        page = context.new_page()
        page.goto(address)
        expect(page.locator(STATUS)).to_have_text(re.compile("Type a query"), timeout=60_000)
        page.fill("#query", "mug")
        page.press("#query", "Enter")
        while not page.evaluate("Boolean(window.answer)"):  # the page lets no string be evaluated
            page.wait_for_timeout(50)
        page.go_back()
        expect(page.locator("#query")).to_have_value("")
        page.evaluate("answer()")
        assert shown(page) == []
        assert page.inner_text(STATUS) == "Type a query."


def test_axe_finds_no_fault_wide_or_narrow_light_or_dark(page: Page) -> None:
    assert len(search(page, "coffee maker")) == 10
    for width, scheme in ((1280, "light"), (320, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert find_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_ranges_find_what_whole_tiles_find(browser: Browser, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    grow(made, GROWN, folder)
    queries = ("usb c cable", "red shoes", "desk lamp")
    results = []
    for ranges in (True, False):
        with opened(browser, folder, ranges=ranges) as page:
            statuses: list[int] = []
            page.on("response", partial(keep_status, statuses))
            found = [search(page, text) for text in queries]
            scores = page.locator("#hits .score").all_inner_texts()
            results.append((found, scores))
            assert (206 in statuses) == ranges
    assert results[0] == results[1]
    changed("vectors-00001-*.bin", lambda _: b"\0" * 100_000)(folder)
    with opened(browser, folder, "?q=usb+c+cable") as page:
        expect(page.locator(STATUS)).to_have_text(
            re.compile(r"vectors-00001-\w+\.bin is (cut off|missing)"), timeout=60_000
        )


def test_an_open_page_takes_no_vectors_of_a_folder_that_replaced_its_own(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "grown"
    grow(made, GROWN, folder)
    with opened(browser, folder) as page:
        expect(page.locator(STATUS)).to_have_text(re.compile("Type a query"), timeout=60_000)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        for number, path in enumerate(sorted(folder.glob("vectors-*.bin"))):
            rows = np.fromfile(path, np.uint8).reshape(-1, manifest["dimension"] + 4)
            path.unlink()
            rows[::-1].tofile(folder / tiles.tile_name("vectors", number))  # as many bytes
        command.write_manifest(folder, manifest)
        page.fill("#query", "usb c cable")
        page.press("#query", "Enter")
        expect(page.locator(STATUS)).to_have_text(
            re.compile(r"^vectors-\d+-\w+\.bin is missing .* Load the page again\."), timeout=30_000
        )
        assert shown(page) == []
        page.reload()
        assert len(search(page, "usb c cable")) == 10


def changed(pattern: str, change: Callable[[bytes], bytes]) -> Change:
    def apply(folder: Path) -> None:
        (path,) = folder.glob(pattern)
        data = path.read_bytes()
        path.unlink()  # it may be a link to the whole one
        path.write_bytes(change(data))

    return apply


FAULTS: tuple[tuple[Change, dict[str, Any], str, str], ...] = (
    (changed("codes-00000-*.bin", lambda data: data[:-7]), {}, "",
     r"^codes-00000-\w+\.bin must have \d+ bytes \(found \d+\): it is cut off"),
    (changed("model.onnx", lambda data: data[:9_000_000] + b"x" + data[9_000_001:]), {}, "",
     r"^model\.onnx is damaged"),
    (changed("titles-00000-*.bin", lambda data: data[:-1]), {}, "",
     r"^titles-00000-\w+\.bin must have"),
    (changed("vectors-00000-*.bin", lambda data: data[:-1]), {}, "",
     r"^vectors-00000-\w+\.bin must have"),
    (changed("manifest.json", lambda data: data[:100]), {}, "", r"^manifest\.json is damaged"),
    (lambda folder: (folder / "model.onnx").unlink(), {}, "",
     r"^model\.onnx is missing \(the server answers 404\)"),
    (lambda folder: (folder / "vendor/tokenizers.js").unlink(), {}, "",
     r"^vendor/tokenizers\.js is missing"),
    (lambda _: None, {"types": {".js": "text/plain"}}, "",
     r"^The server sends worker\.js as text/plain, and browsers run only text/javascript"),
    (lambda _: None, {}, "delete window.Worker", "^This browser has no Worker"),
    (lambda _: None, {}, "delete window.WebAssembly", "^This browser has no WebAssembly"),
    (lambda _: None, {}, "delete window.DecompressionStream", "too old for this page"),
    (changed("page.js", lambda data: data + b"\n~~ not for this browser"), {}, "",
     r"^This page did not start\. It needs JavaScript"),
)  # fmt: skip


def test_each_fault_is_one_message_on_the_page(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    for number, (break_it, server, script, said) in enumerate(FAULTS):
        folder = tmp_path / str(number)
        shutil.copytree(made, folder, copy_function=os.link)
        break_it(folder)
        with serve(folder, **server) as address, browser.new_context() as context:
            context.add_init_script(script)
            page = context.new_page()
            page.goto(f"{address}?q=mug")
            expect(page.locator(STATUS)).to_have_text(re.compile(said), timeout=60_000)
            assert page.locator("#hits li").count() == 0


def test_the_types_of_all_but_scripts_do_not_matter(page: Page) -> None:
    asked = """async (name) =>
        (await fetch(name, { method: "HEAD" })).headers.get("Content-Type")"""
    for name in ("vendor/onnxruntime.wasm", "model.onnx", "codebook.bin"):
        assert page.evaluate(asked, name) == UNUSUAL[Path(name).suffix]
    assert len(search(page, "mug")) == 10
