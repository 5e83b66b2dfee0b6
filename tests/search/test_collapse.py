"""Duplicates collapsed in search: the first product of each group, as the stage's nDCG has it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import workspace
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.duplicates import stage as duplicates
from pipeline.duplicates.table import GROUPS
from pipeline.search.answer import Hit
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.question import Question
from pipeline.similar import stage as similar
from tests.helpers.small_project import inside

pytestmark = pytest.mark.slow

LOCALE = "es"


@pytest.fixture(scope="module")
def folder(small_project: Path) -> Iterator[Path]:
    """A small project whose duplicates are grouped, as the working folder."""
    with inside(small_project):
        given = load_params()
        similar.similar(given, LOCALE)
        duplicates.duplicates(given, LOCALE)
        yield small_project
        for made in (layout.similar(LOCALE), layout.duplicates(LOCALE)):
            shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    """The engine of that project."""
    return open_engine(LOCALE)


@pytest.fixture(scope="module")
def group(engine: Engine) -> dict[str, str]:
    """The id that names the group of each product in one."""
    table = tables.read_table(layout.duplicates(LOCALE).groups, GROUPS, "")
    columns = (table[name].to_pylist() for name in ("product_id", "kept_id"))
    found = dict(zip(*columns, strict=True))
    assert len(set(found.values())) >= 3  # the demo plants them
    return found


def collapse(hits: list[Hit], group: dict[str, str]) -> list[Hit]:
    """Return the first hit of each group, by a loop."""
    seen: set[str] = set()
    first = []
    for hit in hits:
        name = group.get(hit.product.product_id, hit.product.product_id)
        if name not in seen:
            seen.add(name)
            first.append(hit)
    return first


def test_each_group_is_shown_once_by_its_first_product_and_says_how_many_it_has(
    engine: Engine, group: dict[str, str]
) -> None:
    total, removed = len(engine.shown.ids), 0
    for text in [*list(engine.judged.rows)[:6], "zapatillas rojas"]:
        whole = engine.search(Question(text, k=total))
        found = engine.search(Question(text, k=total, collapse=True))
        expected = {name: collapse(hits, group) for name, hits in whole.systems.items()}
        for system in FIRST_SYSTEMS:
            mine = found.systems[system]
            assert [(hit.product, hit.score, hit.label) for hit in mine] == [
                (hit.product, hit.score, hit.label) for hit in expected[system]
            ]
            assert [hit.rank for hit in mine] == list(range(1, len(mine) + 1))
            assert found.found[system] == len(mine)
            removed += len(whole.systems[system]) - len(mine)
            for hit in mine:
                name = group.get(hit.product.product_id)
                others = 0 if name is None else list(group.values()).count(name) - 1
                assert hit.variants == others
                for other, rank in hit.ranks.items():  # the product there is of the same group
                    there = expected[other][rank - 1].product.product_id
                    assert there == hit.product.product_id or group[there] == name
    assert removed > 0


def test_a_filter_counts_only_variants_that_pass_it(engine: Engine, group: dict[str, str]) -> None:
    product_id = next(iter(group))
    product = engine.product(engine.shown.row_of(product_id) or 0)
    filters = {"brand": product.brand}
    answer = engine.search(Question("x", ("dense",), 100, filters, collapse=True))
    passing = engine.search(Question("x", ("dense",), 100, filters)).systems["dense"]
    names = [group.get(hit.product.product_id, hit.product.product_id) for hit in passing]
    for hit in answer.systems["dense"]:
        name = group.get(hit.product.product_id, hit.product.product_id)
        assert hit.variants == names.count(name) - 1


def test_without_it_answers_are_as_ever_and_python_has_the_same(engine: Engine) -> None:
    text = next(iter(engine.judged.rows))
    read = engine.search(Question(text)).as_dict()
    assert "collapsed" not in read
    assert "variants" not in read["systems"]["dense"]["hits"][0]
    found = workspace.open(LOCALE).search(text, k=5, collapse=True)
    assert found.columns[-1] == "variants"
    answer = engine.search(Question(text, k=5, collapse=True))
    assert found["variants"].tolist() == [
        hit.variants for hits in answer.systems.values() for hit in hits
    ]
    assert answer.as_dict()["collapsed"] is True


def test_groups_that_are_missing_or_of_something_else_refuse_only_to_collapse(
    engine: Engine, folder: Path
) -> None:
    question = Question("zapatillas", collapse=True)
    text = layout.PARAMS.read_text()
    moved = layout.duplicates(LOCALE).folder.rename("moved")
    try:
        for explore, said in (("[]", "Add es to explore in params.yaml. Run"), ("[es]", "g. Run")):
            layout.PARAMS.write_text(text.replace("explore: []", f"explore: {explore}"))
            without = open_engine(LOCALE)
            with pytest.raises(PipelineError, match=rf"{said} `dvc repro duplicates@es`"):
                without.search(question)
            assert (
                without.search(Question("zapatillas")).found
                == engine.search(Question("zapatillas")).found
            )
    finally:
        moved.rename(layout.duplicates(LOCALE).folder)
        layout.PARAMS.write_text(text)
    for old, new in (("  text: 0.7", "  text: 0.6"), ("  neighbours: 20", "  neighbours: 19")):
        layout.PARAMS.write_text(text.replace(old, new, 1))
        try:
            with pytest.raises(PipelineError, match=r"the groups are of other .*duplicates@es`"):
                open_engine(LOCALE).search(question)
        finally:
            layout.PARAMS.write_text(text)
