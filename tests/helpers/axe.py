"""axe-core, which checks that everybody can use a page: fetched by npm, run in the browser."""

import shutil
from functools import cache

import pytest
from playwright.sync_api import Page

from pipeline.browser.npm import Package, read_taken

AXE = Package(
    "axe-core@4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    {"package/axe.min.js": "axe.js"},
)


@cache
def _script() -> str:
    ((_, script),) = read_taken(AXE)
    return script.decode()


def find_faults(page: Page) -> list[str]:
    """Return what axe finds wrong in a page as it is now; skip the test where npm is missing."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here, which fetches axe-core")
    page.evaluate(_script())
    found: list[str] = page.evaluate(
        """async () => {
            const { violations } = await axe.run({ resultTypes: ["violations"] });
            return violations.flatMap(({ impact, id, nodes }) =>
                nodes.map(node => `${impact} ${id}: ${node.html.slice(0, 120)}`));
        }"""
    )
    return found
