"""reports/catalogue/<locale>.html: whole, safe, true to the artefacts, useful in a browser."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page

from pipeline.catalogue.colours import as_css, cluster_colours
from pipeline.catalogue.labels import fit_labels, text_width
from pipeline.catalogue.raster import Frame, dot_radius, draw_raster
from pipeline.catalogue.stage import catalogue
from pipeline.clusters.form import read_report
from pipeline.clusters.stage import clusters
from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.index import stage as stage_index
from pipeline.similar import stage as similar
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings
from tests.helpers.axe import find_faults
from tests.helpers.chromium import needs_browser, needs_npm
from tests.helpers.page_artefacts import NASTY

PRODUCTS = 90
DUPLICATES = {
    "products": PRODUCTS, "groups": 1, "duplicates": 11,
    "duplicates_of_equal_text": 10,
    "duplicates_of_near_text": 1, "largest_group": 12,
    "examples": [
        {
            "size": 12,
            "products": [
                {"product_id": "B1", "text": NASTY[0], "cosine": 1.0, "text_similarity": 1.0},
                {"product_id": "B2", "text": "dos", "cosine": 0.98, "text_similarity": 0.875},
            ],
        }
    ],
}  # fmt: skip


THREE: dict[str, object] = {"clusters.count": 3}
"""The settings of the page."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the page of a catalogue in which some titles are nasty."""
    folder = tmp_path_factory.mktemp("catalogue")
    with contextlib.chdir(folder):
        rng = np.random.default_rng(1)
        group = rng.integers(0, 3, PRODUCTS)
        vectors = 5 * random_vectors(rng, 3)[group] + random_vectors(rng, PRODUCTS)
        write_clean(rng, PRODUCTS, 20)
        _retitle([*NASTY, *(f"zapato {'abc'[of]}color" for of in group[len(NASTY) :])])
        write_embeddings(params(), vectors, random_vectors(rng, 20))
        stage_index.index(params(), LOCALE)
        similar.similar(params(), LOCALE)
        of = ("encoder", "table_sha256", "vectors_sha256")
        near = json.loads(layout.similar_report(LOCALE).read_text())
        duplicates = DUPLICATES | {key: near[key] for key in of}
        files.write_json(layout.duplicates_report(LOCALE), duplicates)
        clusters(params(THREE), LOCALE)
        catalogue(params(THREE), LOCALE)
    return folder


@pytest.fixture
def inside(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def _retitle(titles: list[str]) -> None:
    path = layout.clean(LOCALE).products
    ids = tables.read_table(path, tables.PRODUCTS, "")["product_id"]
    ends = [[len(title)] * len(params().clean.fields) for title in titles]
    columns = {"product_id": ids, "text": titles, "field_ends": ends}
    tables.write_table(path, pa.table(columns, tables.PRODUCTS), tables.PRODUCTS)


def _say_otherwise(report: Path, changed: dict[str, object]) -> None:
    files.write_json(report, json.loads(report.read_text()) | changed)


def test_the_page_is_the_same_twice_and_alone(inside: Path) -> None:
    page = layout.catalogue(LOCALE)
    first = page.read_bytes()
    catalogue(params(THREE), LOCALE)
    assert page.read_bytes() == first
    text = first.decode()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert "url(" not in text
    assert "@import" not in text


def test_texts_of_the_data_are_escaped(inside: Path) -> None:
    text = layout.catalogue(LOCALE).read_text(encoding="utf-8")
    assert not [each for each in NASTY[:3] if each in text]
    assert text.count("<script") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert set(NASTY) <= set(json.loads(data[1])["title"])


def test_the_page_says_what_the_reports_say(inside: Path) -> None:
    text = layout.catalogue(LOCALE).read_text(encoding="utf-8")
    report = read_report(LOCALE)
    for group in report.groups:
        assert f'<details id="cluster-{group.cluster}">' in text
        assert " · ".join(group.name) in text
    lift = report.measures.clusters and report.measures.clusters.lift
    assert lift
    assert f"{lift.mean:.1f} [{lift.low:.1f}, {lift.high:.1f}]" in text
    near = json.loads(layout.similar_report(LOCALE).read_text())["dense"]["concordance"]
    assert f"{near:.3f} [" in text
    assert "<b>11</b> of the 90 products (12.2%) repeat another" in text
    assert "and 10 more" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda: layout.clusters_report(LOCALE).unlink(),
            "is missing. Run `dvc repro clusters@es`",
        ),
        (lambda: layout.similar_report(LOCALE).write_text("{}"), "Run `dvc repro similar@es`"),
        (lambda: layout.duplicates_report(LOCALE).write_text("["), "Run `dvc repro duplicates@es`"),
        *(
            (
                partial(_say_otherwise, of(LOCALE), {key: value}),
                f"than the clusters. Run `dvc repro {stage}@es`",
            )
            for stage, of in (
                ("similar", layout.similar_report),
                ("duplicates", layout.duplicates_report),
            )
            for key, value in (
                ("products", 7),
                ("encoder", "labse"),
                ("table_sha256", "0" * 64),
                ("vectors_sha256", "0" * 64),
            )
        ),
        (lambda: layout.clusters(LOCALE).map.write_bytes(b"PAR1"), "map.parquet: sha256 must be"),
        (lambda: layout.clusters(LOCALE).map.unlink(), "is missing. Run `dvc repro clusters@es`"),
        (lambda: layout.clusters(LOCALE).card.unlink(), "is missing. Run `dvc repro clusters@es`"),
        (
            lambda: _say_otherwise(layout.clusters_report(LOCALE), {"encoder": "labse"}),
            "es.json: sha256 must be",
        ),
        (lambda: clusters(params(), LOCALE), "settings must be"),
        (lambda: clusters(params(THREE | {"clean.separator": "; "}), LOCALE), "texts must be"),
        (lambda: write_clean(np.random.default_rng(9), PRODUCTS, 20), "of other products"),
        (lambda: write_clean(np.random.default_rng(9), 50, 20), "of other products"),
    ],
)
def test_artefacts_that_do_not_fit_are_refused_and_the_old_page_stays(
    damage: object, message: str, inside: Path
) -> None:
    before = layout.catalogue(LOCALE).read_bytes()
    assert callable(damage)
    damage()
    with pytest.raises(PipelineError, match=re.escape(message)):
        catalogue(params(THREE), LOCALE)
    assert layout.catalogue(LOCALE).read_bytes() == before


def test_after_new_vectors_each_stage_that_has_not_run_again_is_named_until_all_have(
    inside: Path,
) -> None:
    rng = np.random.default_rng(7)
    write_embeddings(params(), random_vectors(rng, PRODUCTS), random_vectors(rng, 20))
    clusters(params(THREE), LOCALE)
    with pytest.raises(PipelineError, match=r"vectors_sha256 must be .*dvc repro similar@es"):
        catalogue(params(THREE), LOCALE)
    stage_index.index(params(), LOCALE)
    similar.similar(params(), LOCALE)
    with pytest.raises(PipelineError, match=r"vectors_sha256 must be .*dvc repro duplicates@es"):
        catalogue(params(THREE), LOCALE)


def test_without_labels_the_page_says_so(inside: Path) -> None:
    path = layout.clean(LOCALE).judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, "")
    tables.write_table(path, judgements.slice(0, 0), tables.JUDGEMENTS)
    clusters(params(), LOCALE)
    similar.similar(params(), LOCALE)
    catalogue(params(), LOCALE)
    text = layout.catalogue(LOCALE).read_text(encoding="utf-8")
    assert "Not measured (pairs): no product with a text is Exact for a query." in text
    assert "Not measured: no query has an Exact product" in text


def test_a_pixel_has_the_colour_of_its_most_frequent_cluster() -> None:
    places = np.array([[0, 0]] * 3 + [[1, 1]] * 2, dtype=np.float32)
    cluster = np.array([1, 1, 0, 0, 2])
    colours = cluster_colours(3)
    frame = Frame.around(places)
    drawn = draw_raster(places, cluster, colours, frame)
    assert drawn.shape == (frame.height, frame.width, 4)
    at = np.rint(frame.pixels(places)).astype(int)
    assert drawn[at[0, 1], at[0, 0], :3].tolist() == colours[1].tolist()
    assert drawn[at[3, 1], at[3, 0], :3].tolist() == colours[0].tolist(), (
        "of two the larger cluster"
    )
    assert drawn[at[0, 1], at[0, 0], 3] > drawn[at[3, 1], at[3, 0], 3] > 0
    assert (drawn[..., 3] == 0).mean() > 0.99


def test_many_products_are_a_picture_of_the_same_size() -> None:
    rng = np.random.default_rng(2)
    places = rng.random((100_000, 2)).astype(np.float32)
    drawn = draw_raster(
        places, rng.integers(0, 9, len(places)), cluster_colours(9), Frame.around(places)
    )
    assert max(drawn.shape) == 1_000
    assert [dot_radius(products) for products in (1, 600, 100_000, 1_200_000)] == [3, 3, 1, 0]


def test_any_places_are_inside_the_frame() -> None:
    for places in (np.zeros((1, 2)), np.array([[0, 0], [1, 0]]), np.array([[0, 0], [0, 1]])):
        frame = Frame.around(places.astype(np.float32))
        pixels = frame.pixels(places.astype(np.float32))
        assert (pixels >= 0).all()
        assert (pixels < [frame.width, frame.height]).all()


def test_labels_do_not_cover_each_other_and_the_largest_clusters_come_first() -> None:
    rng = np.random.default_rng(3)
    frame = Frame(1, np.zeros(2), 1000, 600)
    names = [[f"palabra{i}", "日本語"] for i in range(80)] + [[]]
    at = [(float(x), float(y)) for x, y in rng.random((81, 2)) * [1000, 600]]
    labels = fit_labels(names, at, frame, 20)
    assert 5 < len(labels) < 80
    assert labels[0].text == "palabra0 · 日本語"
    half = [10 * text_width(label.text) for label in labels]
    for i, one in enumerate(labels):
        assert half[i] <= one.x + 0.1
        for j, other in enumerate(labels[:i]):
            apart = abs(one.x - other.x) >= half[i] + half[j]
            assert apart or abs(one.y - other.y) >= 20


def test_colours_differ() -> None:
    assert len(set(as_css(cluster_colours(213)))) > 200


@pytest.fixture(scope="module")
def page(browser: Browser, made: Path) -> Iterator[Page]:
    """The page in a browser; an error of its script or of the policy fails the test."""
    opened = browser.new_page(viewport={"width": 360, "height": 800})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(f"{said.type}: {said.text}"))
    opened.on("request", lambda asked: errors.append(asked.url))
    path = made / layout.catalogue(LOCALE)
    opened.goto(path.as_uri())
    yield opened
    found = [each for each in errors if not each.startswith("data:")]
    assert found == [path.as_uri()], "the page itself and nothing else"


@needs_browser
@pytest.mark.slow
def test_products_are_pointed_at_by_mouse_and_by_keyboard(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#points circle").count() == PRODUCTS
    tip = page.locator("#tip")
    page.locator("#points circle").first.hover(force=True)
    assert tip.locator("bdi").inner_text() == NASTY[0]
    page.locator("#canvas").focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator("#said").inner_text()
    page.keyboard.press("+")
    assert page.locator("#farther").is_enabled()
    page.keyboard.press("Escape")
    assert page.locator("#farther").is_disabled()


@needs_browser
@pytest.mark.slow
def test_a_screen_reader_leaves_the_arrow_keys_to_the_map_and_finds_a_picture_in_it(
    page: Page, browser: Browser, made: Path
) -> None:
    name = f"Map of {PRODUCTS} products, coloured by cluster"
    keys = page.get_by_role("application", name="Products on the map")
    assert keys.get_attribute("tabindex") == "0"
    told = page.locator(f"#{keys.get_attribute('aria-describedby')}")
    assert "the arrow keys go from product to product" in told.inner_text()
    assert keys.get_by_role("img", name=name).count() == 1
    with browser.new_context(java_script_enabled=False) as context:
        still = context.new_page()
        still.goto((made / layout.catalogue(LOCALE)).as_uri())
        assert still.get_by_role("img", name=name).count() == 1
        assert still.get_by_role("application").count() == 0


@needs_browser
@needs_npm
@pytest.mark.slow
def test_axe_finds_no_fault(page: Page) -> None:
    assert find_faults(page) == []


@needs_browser
@pytest.mark.slow
def test_a_cluster_is_chosen_shown_and_filtered(page: Page, made: Path) -> None:
    with contextlib.chdir(made):
        sizes = [group.products for group in read_report(LOCALE).groups]
    page.locator("#cluster").select_option("1")
    shown = page.locator("#points circle[visibility=visible]").count()
    assert shown == sizes[1]
    page.locator("#filter").fill("acolor")
    left = page.locator("#groups details:not([hidden])").count()
    assert 0 < left < len(sizes)
    assert page.locator("#found").inner_text() == f"{left} of {len(sizes)} clusters"
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
