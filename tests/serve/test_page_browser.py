"""The served page in a real browser: by keyboard, on a phone, without scripts, without a network.

Needs chromium, chromium-browser or google-chrome on the PATH; the tests skip where there is none.
"""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.search.opening import open_engine
from tests.helpers.artefacts import ROOT
from tests.helpers.axe import find_faults
from tests.helpers.chromium import needs_browser, needs_npm
from tests.helpers.small_project import inside

pytestmark = [pytest.mark.slow, needs_browser]

START_SECONDS = 120
"""What a server may take to start, on the busiest machine."""

Open = Callable[..., Page]


@contextmanager
def started(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start the server in a project; yield its process and address. It never outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.serve", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(folder / ".cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    late = threading.Timer(START_SECONDS, process.kill)  # else a read of its lines may never end
    late.start()
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"http://127\.0\.0\.1:\d+", line):
                late.cancel()
                yield process, found[0]
                break
        else:
            raise AssertionError(f"the server did not start: {said}")
    finally:
        late.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def address(small_project: Path) -> Iterator[str]:
    """The address of a server over the small project, in a process of its own."""
    with started(small_project) as (process, found):
        yield found
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in said


@pytest.fixture(scope="module")
def queries(small_project: Path) -> list[str]:
    """The judged queries."""
    with inside(small_project):
        return list(open_engine("es").judged.rows)


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Open]:
    """Return what opens the page; nothing may go wrong, or be asked of another host."""
    contexts, told, asked = [], [], []

    def open_page(width: int = 1280, scheme: Any = "light", **settings: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in told if not re.search("status of 40[04]", text)] == []
    assert [url for url in asked if not url.startswith(f"{address}/")] == []


def test_the_keyboard_alone_searches_filters_and_finds_similar_products(
    opened: Open, queries: list[str]
) -> None:
    page = opened(java_script_enabled=False)
    expect(page.get_by_role("searchbox")).to_be_focused(timeout=30_000)
    page.keyboard.type(queries[0])
    page.keyboard.press("Enter")
    page.wait_for_url("**q=*")
    assert page.get_by_role("searchbox").input_value() == queries[0]
    assert page.locator("ol li").count() >= 10
    shown = page.url
    page.get_by_label("Filter by brand").get_by_role("link").first.press("Enter")
    page.wait_for_url("**brand=*")
    page.get_by_label("Filter by brand").get_by_role("link").press("Enter")
    page.wait_for_url(lambda url: "brand=" not in url)
    assert page.locator("ol li").count() >= 10
    page.locator("ol").first.get_by_role("link").first.press("Enter")
    page.wait_for_url("**/similar/*")
    assert page.locator("ol li").count() == 10
    page.go_back()
    assert "brand=" not in page.url
    assert shown.split("?")[1].split("&")[0] in page.url


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_no_page_is_wider_than_the_window(
    opened: Open, address: str, queries: list[str], width: int
) -> None:
    page = opened(width)
    page.get_by_role("searchbox").fill(queries[1])
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**q=*")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    similar = page.locator("ol a").first.get_attribute("href")
    for path in (f"/?q={'W' * 900}&right=hybrid", str(similar), "/similar/nothing", "/?q="):
        page.goto(f"{address}{path}")
        assert page.evaluate(wide) == 0


@needs_npm
def test_axe_finds_no_fault_wide_or_narrow_light_or_dark(
    opened: Open, address: str, queries: list[str]
) -> None:
    for width, scheme in ((1280, "light"), (320, "dark")):
        page = opened(width, scheme)
        assert find_faults(page) == []
        page.goto(f"{address}/?{urlencode({'q': queries[1], 'right': 'hybrid'})}")
        similar = page.locator("ol a").first.get_attribute("href")
        assert find_faults(page) == []
        for path in (str(similar), "/similar/nothing", "/?q="):
            page.goto(f"{address}{path}")
            assert find_faults(page) == []


def test_ctrl_c_ends_it_in_one_line_and_another_changes_nothing(small_project: Path) -> None:
    with started(small_project) as (process, found):
        assert process.stderr is not None
        connection = http.client.HTTPConnection(found.removeprefix("http://"))
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200  # it serves, and is no longer starting
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "ended\n"
        process.send_signal(signal.SIGINT)
        assert (process.stderr.read(), process.wait()) == ("", 0)
