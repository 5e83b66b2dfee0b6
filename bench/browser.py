"""Time the search in a browser: a folder of `make browser`, grown to more products.

    python -m bench.browser build/browser/us [--products 100000]

Products are repeated, with noise on their vectors, until there are as many as asked for; the
quantiser is trained anew. Times are of the page itself, from the query to the shown titles, warm:
model, codes and libraries are loaded. Needs chromium, chromium-browser or google-chrome.
"""

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from bench.static_server import serve
from pipeline.browser import tiles
from pipeline.browser.command import summarise, write_manifest
from pipeline.core import files, stage
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOISE = 0.3
"""The length of the noise on a vector, as a share of the vector's."""

QUERIES = (
    "red running shoes", "coffee maker", "usb c cable 6ft", "kids backpack", "wireless mouse",
    "bluetooth earbuds noise cancelling", "desk lamp", "water bottle 24 oz", "yoga mat",
    "phone case", "garden hose", "office chair",
)  # fmt: skip
PATIENCE = 120_000  # milliseconds


def grow(source: Path, products: int, out: Path) -> None:
    """Write a copy of a folder with `products` products: those it has, repeated with noise."""
    manifest = files.read_json(source / "manifest.json", "Run make browser.")
    shutil.copytree(source, out)
    for name in ("codes", "vectors", "titles", "brands"):
        for path in out.glob(f"{name}-*.bin"):
            path.unlink()
    (out / "brands.bin").unlink(missing_ok=True)
    (out / "manifest.json").unlink()
    vectors = tiles.unpack_vectors(tiles.read_tiles(source, "vectors", manifest["dimension"] + 4))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((products, vectors.shape[1]), np.float32)
    noise *= NOISE / np.sqrt(vectors.shape[1])
    grown: Matrix = np.resize(vectors, noise.shape) + noise
    grown /= np.linalg.norm(grown, axis=1, keepdims=True)
    sample = grown[tiles.training_rows(products)]
    quantiser = tiles.Quantiser(sample)
    order = tiles.near_order(lambda: [grown], sample)
    (out / "codebook.bin").write_bytes(quantiser.codebook.astype("<f4").tobytes())
    tiles.write_vectors(out, np.array_split(grown[order], -(-products // 16_384)), quantiser)
    titles = [
        title for path in sorted(source.glob("titles-*.bin")) for title in tiles.read_packed(path)
    ]
    tiles.write_titles(out, (titles[row % len(titles)] for row in order.tolist()))
    about = {key: value for key, value in manifest.items() if key not in ("files", "brands")}
    write_manifest(out, {**about, "products": products, "brands": 0})


def time_queries(page: Page, asked: list[int]) -> list[int]:
    """Return what the page says that each query took, in milliseconds.

    The bytes of every answer that the page gets meanwhile are added to `asked`.
    """
    took = []
    page.on("response", lambda answer: asked.append(int(answer.headers.get("content-length", 0))))
    for query in QUERIES:
        page.fill("#query", query)
        page.press("#query", "Enter")
        done = re.compile(r"products, in (\d+) ms")
        expect(page.locator("#status")).to_have_text(done, timeout=PATIENCE)
        found = done.search(page.inner_text("#status"))
        assert found is not None
        took.append(int(found[1]))
    return took


def main() -> int:
    """Grow the folder, time it with ranges and without, and print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.browser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="what make browser wrote")
    parser.add_argument("--products", type=int, default=100_000, help="how many (100000)")
    asked = parser.parse_args()
    with (
        stage.report_errors("browser") as outcome,
        tempfile.TemporaryDirectory() as scratch,
        contextlib.ExitStack() as stack,
    ):
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None:
            raise PipelineError(f"none of {', '.join(BROWSERS)} is on the PATH. Install one.")
        folder = Path(scratch) / "grown"
        grow(asked.folder, asked.products, folder)
        manifest = files.read_json(folder / "manifest.json", "")
        for name, size in summarise(manifest).items():
            sys.stdout.write(f"{size / 1e6:8.1f} MB  {name}\n")
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(browser.close)
        for ranges in (True, False):
            with serve(folder, ranges=ranges) as address:
                page = browser.new_page()
                page.goto(address)
                text = re.compile("Type a query")
                expect(page.locator("#status")).to_have_text(text, timeout=PATIENCE)
                answers: list[int] = []
                first, *warm = time_queries(page, answers)
                sys.stdout.write(
                    f"{'with' if ranges else 'without'} range requests: first {first} ms, then "
                    f"median {median(warm):.0f} ms, at most {max(warm)} ms; "
                    f"{len(answers) / len(QUERIES):.0f} requests and "
                    f"{sum(answers) / len(QUERIES) / 1e3:.0f} kB a query\n"
                )
                page.close()
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
