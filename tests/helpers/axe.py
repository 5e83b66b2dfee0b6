"""axe-core, which checks that everybody can use a page: fetched by npm, run in the browser."""

import shutil
import tarfile
from functools import cache

import pytest
from playwright.sync_api import Page

from pipeline.browser.npm import Package, fetch

AXE = Package(
    "axe-core@4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    {},
)


@cache
def _script() -> str:
    with tarfile.open(fetch(AXE)) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


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
