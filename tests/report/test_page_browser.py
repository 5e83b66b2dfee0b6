"""reports/report.html in a real browser: true to the data, safe, alone, on a phone, by keyboard.

Needs chromium, chromium-browser or google-chrome on the PATH; the tests skip where there is none.
"""

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.core import layout
from pipeline.core.params import Params
from pipeline.report import stage as report
from pipeline.report.inputs import RUNS, SHOWN, Estimate
from pipeline.report.wording import format_estimate
from tests.helpers.artefacts import params
from tests.helpers.axe import find_faults
from tests.helpers.chromium import needs_browser, needs_npm
from tests.helpers.page_artefacts import NASTY, write_locale

pytestmark = [pytest.mark.slow, needs_browser]

QUERIES = 60
LANGUAGES = {"us": "en", "es": "es", "jp": "ja"}
FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the page of three locales, the indexes of one not measured."""
    made = tmp_path_factory.mktemp("page")
    given: Params = params()
    with contextlib.chdir(made):
        for locale in given.locales:
            write_locale(given, locale, QUERIES, measured=locale != "jp")
        report.report(given)
    return made


@dataclass
class Opened:
    """A page, what its console said and what it asked for."""

    page: Page
    told: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Open]:
    """Return what opens the page; whatever a test does, nothing may go wrong or be asked for.

    The page jumps where it would scroll smoothly: each click would wait for the end of that.
    """
    all_opened: list[Opened] = []

    def open_page(width: int = 1280, scheme: Any = "light", **settings: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            **settings,
        )
        one = Opened(context.new_page())
        one.page.on("console", lambda message: one.told.append(message.text))
        one.page.on("pageerror", lambda error: one.told.append(str(error)))
        one.page.on("request", lambda request: one.requests.append(request.url))
        one.page.goto((folder / layout.PAGE).as_uri())
        all_opened.append(one)
        return one.page

    yield open_page
    for one in all_opened:
        alone = [url for url in one.requests if not url.startswith(("data:", "blob:"))]
        told = one.told
        one.page.context.close()
        assert told == []
        assert alone == [(folder / layout.PAGE).as_uri()]


def _open_everything(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for button in page.locator("#rows button").all()[:2]:
        button.click()


def _top_rows(folder: Path, locale: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / layout.top(locale)).to_pylist()
    return rows


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_element_overflows_the_page_or_its_chart(opened: Open, width: int) -> None:
    page = opened(width)
    for locale in ("", "jp"):
        page.select_option("#locale", locale)
        page.get_by_role("button", name="query", exact=True).click()
        _open_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = page.evaluate(
            """() => [...document.body.querySelectorAll('*')].filter(element => {
                if (element.closest('.unseen, .skip, script, svg')) return false;
                if (element.parentElement.closest('.scroll')) return false;
                const box = element.getBoundingClientRect();
                return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
            }).map(element => element.outerHTML.slice(0, 120))"""
        )
        assert outside == []
    cut_off = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart text')].filter(text => {
            const box = text.getBoundingClientRect();
            const chart = text.closest('svg').getBoundingClientRect();
            return box.left < chart.left - 1 || box.right > chart.right + 1
                || box.top < chart.top - 1 || box.bottom > chart.bottom + 1;
        }).map(text => text.textContent)"""
    )
    assert cut_off == []


def test_names_of_indexes_do_not_cover_each_other(opened: Open) -> None:
    covered = opened().evaluate(
        """() => [...document.querySelectorAll('#indexes svg.chart')].flatMap(chart => {
            const boxes = [...chart.querySelectorAll('text')]
                .filter(text => text.textContent.endsWith(' B'))
                .map(text => [text.textContent, text.getBoundingClientRect()]);
            return boxes.flatMap(([a, one], place) => boxes.slice(place + 1)
                .filter(([, other]) => one.left < other.right && other.left < one.right
                    && one.top + 2 < other.bottom && other.top + 2 < one.bottom)
                .map(([b]) => `${a} / ${b}`));
        })"""
    )
    assert covered == []


def test_queries_show_as_they_are_and_run_nothing(opened: Open, folder: Path) -> None:
    page = opened()
    title = page.title()
    for locale, language in LANGUAGES.items():
        page.select_option("#locale", locale)
        shown: list[str] = []
        while True:
            shown += page.eval_on_selector_all(
                "#rows th bdi", "all => all.map(each => each.textContent)"
            )
            if page.locator("#next").get_attribute("aria-disabled") == "true":
                break
            page.locator("#next").click()
        expected = pq.read_table(folder / layout.per_query(locale))["query"].to_pylist()
        assert sorted(shown) == sorted(expected)
        assert set(NASTY) <= set(shown)
        assert page.locator("#rows th bdi").first.get_attribute("lang") == language
        assert page.locator("#rows th bdi").first.get_attribute("dir") == "auto"
    assert page.title() == title
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1 + len(LANGUAGES)


def test_the_page_may_load_nothing_and_run_its_own_script_alone(
    browser: Browser, folder: Path
) -> None:
    page = browser.new_page()
    page.goto((folder / layout.PAGE).as_uri())
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "script-src 'sha256-" in policy
    refused = page.evaluate(
        """async () => {
            const refused = [];
            document.addEventListener('securitypolicyviolation', event => {
                refused.push(event.effectiveDirective);
            });
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
            const image = document.createElement('img');
            image.src = 'https://example.invalid/x.png';
            document.body.append(image);
            await new Promise(done => setTimeout(done, 100));
            return [window.ran === undefined, ...refused.sort()];
        }"""
    )
    assert refused == [True, "img-src", "script-src-elem"]
    page.close()


def test_results_stand_side_by_side_with_title_label_and_place_and_the_unjudged_marked(
    opened: Open, folder: Path
) -> None:
    page = opened()
    query_id = pq.read_table(folder / layout.per_query("us"))["query_id"][0].as_py()
    page.select_option("#locale", "us")
    page.fill("#filter", str(query_id))
    page.wait_for_timeout(200)
    page.locator("#rows tr td").first.click()
    detail = page.locator(f"#detail-us-{query_id}")
    assert detail.locator("h3").all_text_contents() == [*RUNS, "What should have been found"]
    detail_lists = detail.locator(".lists section").all()
    tops = [box["y"] for each in detail_lists if (box := each.bounding_box())]
    assert len(set(tops)) == 1
    for place, system in enumerate(RUNS):
        rows = [
            row
            for row in _top_rows(folder, "us")
            if (row["query_id"], row["system"]) == (query_id, system)
        ]
        items = detail.locator("section").nth(place).locator("li")
        assert items.locator("bdi").all_text_contents() == [row["title"] for row in rows]
        assert items.locator(".rank").all_text_contents() == [str(row["rank"]) for row in rows]
        assert items.locator(".id").all_text_contents() == [row["product_id"] for row in rows]
        chips = items.locator(".chip")
        assert chips.all_text_contents() == [row["label"] or "?" for row in rows]
        names = [chip.get_attribute("aria-label") for chip in chips.all()]
        assert [name == "not judged" for name in names] == [row["label"] is None for row in rows]
    dashed = detail.locator(".chip-unjudged").first
    assert dashed.evaluate("chip => getComputedStyle(chip).borderStyle") == "dashed"
    missed = [
        " · ".join([row["product_id"], *(f"{s}\u00a0{row[s] or '–'}" for s in RUNS)])
        for row in pq.read_table(folder / layout.exact("us")).to_pylist()
        if row["query_id"] == query_id and any(row[s] is None or row[s] > 10 for s in RUNS)
    ]
    assert sorted(detail.locator(".missed .id").all_text_contents()) == sorted(missed)
    page.locator("#rows tr td").first.click()
    assert page.locator(".detail").count() == 0


def test_the_numbers_are_those_of_the_artefacts(opened: Open, folder: Path) -> None:
    page = opened()
    shown = page.eval_on_selector_all(
        "tr[data-locale] td",
        """all => all.map(cell => {
            const { locale, system } = cell.parentElement.dataset;
            return [locale, system, cell.dataset.measure, cell.textContent];
        })""",
    )
    expected = []
    for locale in LANGUAGES:
        means = json.loads((folder / layout.metrics(locale)).read_text())
        intervals = json.loads((folder / layout.intervals(locale)).read_text())
        for system in SHOWN:
            for measure, value in means[system].items():
                interval = intervals[system][measure]
                text = f"{value:.3f}[{interval['low']:.3f}, {interval['high']:.3f}]"
                expected.append([locale, system, measure, text])
        slices = json.loads((folder / layout.slices(locale)).read_text())
        region = page.get_by_role("region", name=f"Slices, {locale}", include_hidden=True)
        cells = region.evaluate(
            """region => [...region.querySelectorAll('tr')].map(row =>
                [...row.querySelectorAll('th, td')].map(cell => cell.textContent))"""
        )
        for each, row in zip(slices["slices"], cells[1:], strict=True):
            estimates = [format_estimate(Estimate(**each["systems"][system])) for system in SHOWN]
            number = f"{each['queries']}{' *' if each['small'] else ''}"
            assert row == [each["slice"], each["value"], number, *estimates]
    assert sorted(shown) == sorted(expected)


def test_the_table_of_queries_sorts_by_each_column_both_ways_and_undefined_comes_last(
    opened: Open, folder: Path
) -> None:
    page = opened()
    page.select_option("#locale", "us")
    values = pq.read_table(folder / layout.per_query("us")).to_pylist()
    for place, system in enumerate(RUNS):
        button = page.locator("#columns button").nth(1 + place)
        for direction, falling in (("descending", True), ("ascending", False)):
            button.click()
            header = page.locator("#columns th").nth(1 + place)
            assert header.get_attribute("aria-sort") == direction
            assert page.locator("#columns [aria-sort]").count() == 1
            shown = page.locator(f"#rows tr td:nth-child({2 + place})").all_text_contents()
            every = sorted((round(row[f"{system}.ndcg@10"], 5) for row in values), reverse=falling)
            assert shown == [f"{value:.3f}" for value in every[:25]]


def test_queries_are_sorted_alike_whatever_language_the_reader_has(opened: Open) -> None:
    for language in ("en-US", "sv-SE"):  # ä is the last letter but one in Swedish
        page = opened(locale=language)
        rows = page.evaluate("Queries.sort([...'zäb'].map(text => ({ text })), 'query', false)")
        assert [row["text"] for row in rows] == ["ä", "b", "z"]


def _follow(page: Page, address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_timeout(50)


def _shown(page: Page) -> list[str]:
    texts: list[str] = page.locator("#rows > tr:not(.detail) bdi").all_text_contents()
    return texts


def test_a_link_shows_what_it_was_copied_from_and_says_what_of_it_is_gone(
    opened: Open, folder: Path
) -> None:
    page, other = opened(), opened()
    page.select_option("#locale", "es")
    page.fill("#filter", "ZAPATILLAS")
    page.wait_for_timeout(200)
    page.locator("#columns button").nth(2).click()
    page.locator("#columns button").nth(2).click()
    page.locator("#rows button").nth(1).click()
    expect(page).to_have_url(re.compile("query="))  # it is written a little later
    address = page.evaluate("location.hash")
    _follow(other, address)
    assert _shown(other) == _shown(page) != []
    assert other.input_value("#filter") == "ZAPATILLAS"
    assert other.locator(".detail").get_attribute("id") == page.locator(".detail").get_attribute(
        "id"
    )
    assert other.locator("#gone").text_content() == ""
    assert other.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    query_id = pq.read_table(folder / layout.per_query("es"))["query_id"][0].as_py()
    for asked, problems in (
        ("locale=es&query=es/-7", ["these data have no query of es with the id -7."]),
        ("query=<b>", ["names no query of a locale that is shown: <b>."]),
        (f"locale=es&query=es/{query_id}&filter=nowhere", ["not in what this link filters"]),
        ("locale=xx&sort=splade&slice=a&value=b",
         ["no locale xx", "no column splade", "in the slice a: b"]),
        (f"locale=es&query=es/{query_id}", []),
    ):  # fmt: skip
        _follow(page, asked)
        told = page.locator("#gone p").all_text_contents()
        assert len(told) == len(problems)
        assert all(problem in line for problem, line in zip(problems, told, strict=True))
        assert page.locator(".detail").count() == (f"query=es/{query_id}" in asked)
    _follow(page, "recall")
    assert page.locator(".detail").count() == 1
    page.locator("#next").click()
    expect(page).to_have_url(re.compile("page="))
    second = _shown(page)
    _follow(other, page.evaluate("location.hash"))
    assert _shown(other) == second
    _follow(other, "")
    assert other.text_content("#status") == f"1 to 25 of {3 * QUERIES} queries"


def test_a_link_opens_the_query_of_its_locale_where_another_has_its_id(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    ids = {
        locale: str(pq.read_table(folder / layout.per_query(locale))["query_id"][0])
        for locale in ("us", "es")
    }
    html = (folder / layout.PAGE).read_text(encoding="utf-8")
    assert html.count(f'["{ids["es"]}",') == 1
    (tmp_path / "page.html").write_text(
        html.replace(f'["{ids["es"]}",', f'["{ids["us"]}",'), encoding="utf-8"
    )
    page = browser.new_page()
    for locale in ("us", "es"):
        page.goto("about:blank")
        page.goto(f"{(tmp_path / 'page.html').as_uri()}#query={locale}/{ids['us']}")
        assert page.locator(".detail").get_attribute("id") == f"detail-{locale}-{ids['us']}"
    page.close()


def test_the_filter_finds_texts_ids_and_titles_of_all_locales_and_the_csv_has_what_it_shows(
    opened: Open, folder: Path
) -> None:
    page = opened()
    rows = {
        locale: pq.read_table(folder / layout.per_query(locale)).to_pylist() for locale in LANGUAGES
    }
    tops = {locale: _top_rows(folder, locale) for locale in LANGUAGES}
    product = tops["jp"][0]["product_id"]
    for wanted, folded in (
        ("NIÑO Inalambricos", ("nino", "inalambricos")), ("ﾜｲﾔﾚｽ", ("ワイヤレス",)),
        (product, (product.lower(),)),
    ):  # fmt: skip
        page.fill("#filter", wanted)
        page.wait_for_timeout(200)  # it filters when the typing pauses
        with page.expect_download() as started:
            page.locator("#csv").click()
        assert started.value.suggested_filename == "queries.csv"
        with started.value.path().open(encoding="utf-8-sig", newline="") as file:
            found = list(csv.DictReader(file))

        def holds(*texts: str, words: tuple[str, ...] = folded) -> bool:
            plain = " ".join(texts).lower().replace("ñ", "n").replace("á", "a")
            return all(word in plain for word in words)

        expected = set()
        for locale, of_locale in rows.items():
            by_title = {
                row["query_id"] for row in tops[locale] if holds(row["title"], row["product_id"])
            } | {
                row["query_id"]
                for row in pq.read_table(folder / layout.exact(locale)).to_pylist()
                if holds(row["title"] or "", row["product_id"])
            }
            expected |= {
                (locale, str(row["query_id"]), row["query"])
                for row in of_locale
                if holds(row["query"], str(row["query_id"])) or row["query_id"] in by_title
            }
        assert {(each["locale"], each["query_id"], each["query"]) for each in found} == expected
        assert len(found) == len(expected) > 0
        assert [each["query"] for each in found][:25] == _shown(page)
        first = found[0]
        (row,) = (one for one in rows[first["locale"]] if str(one["query_id"]) == first["query_id"])
        for system in RUNS:
            value = row[f"{system}.ndcg@10"]
            assert float(first[f"{system}.nDCG@10"]) == round(value, 5)


def test_a_slice_leads_to_its_queries(opened: Open, folder: Path) -> None:
    page = opened()
    kinds = pq.read_table(folder / layout.kinds("es")).to_pylist()
    texts = pq.read_table(folder / layout.per_query("es"))["query"].to_pylist()
    page.get_by_text("As a table of the slices, es").click()
    region = page.get_by_role("region", name="Slices, es")
    link = region.get_by_role("link", name="2-3 words")
    for _ in range(2):  # the second time, the address is the same already
        link.click()
        expect(page.locator("#slice")).to_be_visible()
        assert page.text_content("#slice-name") == "query length: 2-3 words"
        expected = [text for text, each in zip(texts, kinds, strict=True)
                    if each["query length"] == "2-3 words"]  # fmt: skip
        assert f"of {len(expected)} quer" in (page.text_content("#status") or "")
        assert set(_shown(page)) <= set(expected)
    page.locator("#all").click()
    assert "of 60 queries" in (page.text_content("#status") or "")


def test_everything_is_reached_by_keyboard_and_focus_is_seen(opened: Open) -> None:
    page = opened()
    wanted = page.evaluate(
        f"""() => {{
            const all = [...document.querySelectorAll("{FOCUSABLE}")]
                .filter(each => each.checkVisibility());
            all.forEach((each, place) => {{ each.dataset.place = place; }});
            return all.length;
        }}"""
    )
    reached = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        place, width, style = page.evaluate(
            """() => {
                const at = document.activeElement, style = getComputedStyle(at);
                return [at.dataset.place, parseFloat(style.outlineWidth), style.outlineStyle];
            }"""
        )
        assert style == "solid"
        assert width >= 2
        reached.append(int(place))
    assert reached == list(range(wanted))


def test_skip_theme_details_filter_sort_open_and_turn_by_keyboard(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("location.hash") == "#main"
    page.focus("summary")
    page.keyboard.press("Space")
    assert page.locator("details").first.get_attribute("open") is not None
    page.focus("#locale")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "of es" in (page.text_content("#note") or "")
    page.focus("#filter")
    page.keyboard.type("no such query")
    page.wait_for_timeout(200)
    assert page.text_content("#status") == "No query contains that."
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.wait_for_timeout(200)
    assert page.text_content("#status") == f"1 to 25 of {QUERIES} queries"
    page.keyboard.type("ZAPATILLAS")
    page.wait_for_timeout(200)
    assert 0 < page.locator("#rows tr").count() < QUERIES
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.focus("#columns th:first-child button")
    page.keyboard.press("Enter")
    assert page.locator("#columns th").first.get_attribute("aria-sort") == "ascending"
    page.focus("#rows button")
    page.keyboard.press("Enter")
    opened_row = page.locator("#rows button[aria-expanded=true]")
    assert page.locator(f"#{opened_row.get_attribute('aria-controls')}").is_visible()
    page.keyboard.press("Enter")
    assert opened_row.count() == 0
    assert page.locator(".detail").count() == 0
    page.focus("#next")
    page.keyboard.press("Enter")
    assert page.text_content("#status") == f"26 to 50 of {QUERIES} queries"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # there is no fourth page
    assert page.text_content("#status") == f"51 to {QUERIES} of {QUERIES} queries"
    assert page.evaluate("document.activeElement.id") == "next"
    assert page.locator("#next").get_attribute("aria-disabled") == "true"


def test_the_theme_is_the_systems_until_the_button_says_otherwise(opened: Open) -> None:
    surface = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(scheme="light"), opened(scheme="dark")
    colours = light.evaluate(surface), dark.evaluate(surface)
    assert colours[0] != colours[1]
    for page, other, pressed in ((light, colours[1], "true"), (dark, colours[0], "false")):
        page.locator("#theme").click()
        assert page.evaluate(surface) == other
        assert page.locator("#theme").get_attribute("aria-pressed") == pressed


CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const known = new Map();
    const rgba = colour => {
        if (!known.has(colour)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            known.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(colour);
    };
    const light = colour => {
        const [r, g, b] = rgba(colour).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (rgba(colour)[3] === 255) return colour;
        }
        return 'white';
    };
    const found = [];
    for (const element of document.body.querySelectorAll('*')) {
        if (element.closest('script') || !element.checkVisibility()) continue;
        const own = element.matches('input, select')
            || [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (!own) continue;
        const style = getComputedStyle(element), inChart = element.tagName === 'text';
        if (inChart && /--on-/.test(element.getAttribute('style'))) continue;
        const ratio = contrast(inChart ? style.fill : style.color, behind(element));
        if (ratio < 4.5) found.push([element.outerHTML.slice(0, 100), ratio]);
    }
    const probe = document.body.appendChild(document.createElement('i'));
    const role = name => {
        probe.style.color = `var(--${name})`;
        return getComputedStyle(probe).color;
    };
    const pairs = [...'ESCI'].map(label => [`on-${label}`, label, 4.5]);
    pairs.push(...['random', 'bm25', 'dense', 'hybrid', 'unjudged', 'accent']
        .flatMap(name => [[name, 'surface', 3], [name, 'raised', 3]]));
    for (const [one, other, least] of pairs) {
        const ratio = contrast(role(one), role(other));
        if (!(ratio >= least)) found.push([one, other, ratio]);
    }
    return found;
}"""


def test_all_text_has_a_contrast_of_four_and_a_half_and_marks_have_three(opened: Open) -> None:
    page = opened()
    _open_everything(page)
    page.mouse.move(0, 0)
    assert page.evaluate(CONTRASTS) == []
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(CONTRASTS) == []


@needs_npm
def test_axe_finds_no_fault_wide_or_narrow_light_or_dark(opened: Open) -> None:
    page = opened()
    _open_everything(page)
    # The contrast of all text is asked for above, in charts and fields too.
    assert find_faults(page, "color-contrast") == []
    page.set_viewport_size({"width": 360, "height": 900})
    page.emulate_media(color_scheme="dark")
    assert find_faults(page, "color-contrast") == []


def test_ids_are_unique_links_lead_somewhere_and_charts_headers_and_regions_are_named(
    opened: Open,
) -> None:
    page = opened()
    _open_everything(page)
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    faults = page.evaluate(
        """() => {
            const faults = [], ids = new Set();
            const told = element => element.outerHTML.slice(0, 120);
            for (const element of document.querySelectorAll('[id]')) {
                if (ids.has(element.id)) faults.push(`twice: ${element.id}`);
                ids.add(element.id);
            }
            for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls'])
                for (const element of document.querySelectorAll(`[${name}]`))
                    for (const id of element.getAttribute(name).split(' '))
                        if (!ids.has(id)) faults.push(`${name}: no ${id}`);
            for (const link of document.querySelectorAll('a[href^="#"]:not([href*="="])'))
                if (!ids.has(link.hash.slice(1))) faults.push(`leads nowhere: ${link.hash}`);
            for (const chart of document.querySelectorAll('svg.chart')) {
                const title = chart.querySelector(':scope > title').textContent;
                const about = chart.querySelector(':scope > desc').textContent;
                if (chart.getAttribute('role') !== 'img' || !title || !about) faults.push(title);
            }
            for (const drawing of document.querySelectorAll('svg:not(.chart)'))
                if (drawing.getAttribute('aria-hidden') !== 'true') faults.push(told(drawing));
            for (const header of document.querySelectorAll('th'))
                if (!header.scope || !header.textContent.trim()) faults.push(told(header));
            for (const region of document.querySelectorAll('.scroll'))
                if (region.tabIndex !== 0 || region.getAttribute('role') !== 'region'
                    || !region.matches('[aria-label], [aria-labelledby]'))
                    faults.push(told(region));
            return faults;
        }"""
    )
    assert faults == []


def test_without_scripts_the_numbers_are_there_and_the_rest_says_what_it_needs(
    opened: Open,
) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("tr[data-system=hybrid]").first.is_visible()
    assert page.locator("svg.chart").first.is_visible()
    assert page.get_by_text("This table needs JavaScript").is_visible()
    assert not page.locator("#browse").is_visible()
    assert not page.locator("#theme").is_visible()


def test_the_page_scrolls_smoothly_only_where_motion_is_welcome(opened: Open) -> None:
    page = opened()
    motion = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(motion) == "auto"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(motion) == "smooth"


def test_on_paper_controls_are_left_out_and_the_theme_is_light(opened: Open) -> None:
    page = opened(scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator("#theme").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator("tr[data-system=hybrid]").first.is_visible()
    shade = "getComputedStyle(document.body).color"
    assert page.evaluate(shade) == "rgb(26, 31, 39)"
