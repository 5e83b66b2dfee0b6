"""The browser of this machine, for tests of pages; they skip where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FOUND = next(filter(None, map(shutil.which, _NAMES)), None)

needs_browser = pytest.mark.skipif(_FOUND is None, reason=f"none of {', '.join(_NAMES)} is here")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")


@contextmanager
def launched() -> Iterator[Browser]:
    """Start the browser, without a window; it knows no host but this one.

    Within the block a loop of Playwright's runs in this thread, so that nothing else can begin one
    there: no `asyncio.run`, and no second browser.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_FOUND,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()
