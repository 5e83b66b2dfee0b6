"""The page with what moved since a revision: compare's numbers, and links into its own queries."""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.compare import display
from pipeline.compare.command import compare
from pipeline.compare.revision import Revision
from pipeline.core import layout
from pipeline.report import stage as report
from pipeline.since import command
from tests.helpers.artefacts import params
from tests.helpers.page_artefacts import NASTY, seal, write_locale

pytestmark = pytest.mark.slow


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments], check=True)


@pytest.fixture
def repository(project: Path) -> Path:
    """A project whose hybrid was worse in es at the revision `old`."""
    given = params()
    for locale in given.locales:
        write_locale(given, locale, queries=40)
    path = layout.per_query("es")
    whole, table = path.read_bytes(), pq.read_table(path)
    worse = [value / 2 for value in table["hybrid.ndcg@10"].to_pylist()]
    place = table.column_names.index("hybrid.ndcg@10")
    pq.write_table(table.set_column(place, "hybrid.ndcg@10", pa.array(worse, pa.float32())), path)
    seal("es")
    _git("init", "--quiet")
    _git("add", "params.yaml", "reports/per_query")
    _git("commit", "--quiet", "--message", "old")
    _git("tag", "old")
    path.write_bytes(whole)
    return project


def test_the_page_shows_what_compare_finds_and_leads_to_the_queries_that_moved(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["since", "old", "--out", "new/since.html"])
    assert command.main() == 0
    page = Path("new/since.html").read_text(encoding="utf-8")
    found = compare(params(), Revision("old"), Revision("workspace"), 5, with_titles=False)
    section = page[page.index('<section id="since"') :]
    section = section[: section.index("</section>")]
    rows = [
        tuple(unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row))
        for row in re.findall(r"<tr>(.*?)</tr>", section)
    ]
    assert set(map(display.cells, found.found.moves)) <= set(rows)
    assert "better" in section
    assert "titles" not in section
    assert not any(nasty in section for nasty in NASTY[:2])
    (moved,) = (move for move in found.found.moves if not move.equal)
    links = re.findall(r'data-locale="es" data-query="es/(\d+)"', section)
    assert links == [str(change.query_id) for change in moved.wins]
    # The page of the graph has no such section, and all else is the same.
    report.report(params())
    stages = layout.PAGE.read_text(encoding="utf-8")
    assert 'id="since"' not in stages
    assert stages[stages.index('<section id="recall"') :] in page

    # A query that moved is there though it is not among those that the page chooses.
    text = layout.PARAMS.read_text(encoding="utf-8")
    layout.PARAMS.write_text(text.replace("  queries: 2500\n", "  queries: 1\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["since", "old", "--out", "since.html"])
    assert command.main() == 0
    few = Path("since.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'id="queries-of-es">(.*?)</script>', few)
    assert set(links) <= {query[0] for query in json.loads(data)["queries"]}
    assert "1 of the 40 queries of es" in json.loads(data)["note"]
    assert "that moved." in json.loads(data)["note"]
    layout.PARAMS.write_text(text, encoding="utf-8")

    for asked, told in (
        (["nowhere", "--out", "x.html"], "nowhere is not a revision"),
        (["old", "--out", str(layout.PAGE)], "--out"),
    ):
        monkeypatch.setattr(sys, "argv", ["since", *asked])
        assert command.main() == 1
        assert told in capsys.readouterr().err
    assert not Path("x.html").exists()
    assert layout.PAGE.read_text(encoding="utf-8") == stages
