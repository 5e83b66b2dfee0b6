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


def find_faults(page: Page, *left_out: str) -> list[str]:
    """Return what axe finds wrong in a page as it is now; skip the test where npm is missing.

    Args:
        page: the page.
        left_out: rules of axe that the test asks for itself.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not here, which fetches axe-core")
    page.evaluate(_script())
    found: list[str] = page.evaluate(
        """async (rules) => {
            const { violations } = await axe.run({ resultTypes: ["violations"], rules });
            return violations.flatMap(({ impact, id, nodes }) =>
                nodes.map(node => `${impact} ${id}: ${node.html.slice(0, 120)}`));
        }""",
        {name: {"enabled": False} for name in left_out},
    )
    return found
