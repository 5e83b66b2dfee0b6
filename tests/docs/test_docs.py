"""README, CONTRIBUTING and docs name only what is there, and quote only what is printed."""

import ast
import copy
import importlib.util
import re
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench import readme
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import check_params
from tests.helpers.artefacts import ROOT
from tests.helpers.pages import (
    PAGES,
    RUN,
    anchors_of,
    blocks_of,
    code_of,
    links_of,
    tokens_of,
)

GUIDE = tuple(page for page in PAGES if page.name != "CHANGELOG.md")
"""The pages that say how things are now."""

DOCS = tuple(page for page in PAGES if page.parent == readme.DOCS)
NAMED = (
    "encoder",
    "index",
    "language",
    "spelling",
    "rerank",
    "systems",
    "encoders",
    "rerankers",
    "indexes",
)
"""Sections of params.yaml whose keys are names that users choose."""


@cache
def shipped() -> dict[str, Any]:
    """Return params.yaml as it is in this repository."""
    data: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
    return data


@cache
def makefile() -> str:
    """Return the Makefile."""
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def targets() -> set[str]:
    """Return the targets that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*##", makefile(), re.MULTILINE))


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len((ROOT / readme.README).read_text(encoding="utf-8").splitlines()) <= 200
    reached = {link.partition("#")[0] for link in links_of(readme.README)}
    assert {str(page) for page in DOCS} - reached <= {"docs/trec.md"}  # measures.md leads there
    assert "docs/report.png" in reached
    assert (ROOT / "docs/report.png").stat().st_size < 200_000


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_file_and_an_anchor_that_are_there(page: Path) -> None:
    for link in links_of(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert (ROOT / target).is_file(), link
        if anchor:
            assert anchor in anchors_of(Path(str(target).replace("docs/../", ""))), link


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_every_make_target_and_variable_named_is_in_the_makefile(page: Path) -> None:
    for code in code_of(page):
        for target, arguments in re.findall(r"\bmake ((?:[a-z]+-?)+)((?: [A-Z]+=)*)", code):
            assert target in targets(), code
            for name in re.findall(r"[A-Z]+", arguments):
                assert re.search(rf"\$\({name}\)|\$\(if \$\({name}\)", makefile()), code


def test_every_make_target_is_named_somewhere() -> None:
    named = {target for page in GUIDE for code in code_of(page)
             for target in re.findall(r"\bmake ([a-z-]+)", code)}  # fmt: skip
    assert targets() - named <= {"help"}


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_every_module_named_as_a_command_is_there(page: Path) -> None:
    for code in code_of(page):
        for module in re.findall(r"python -m ((?:pipeline|bench)\.[\w.]+)", code):
            spec = importlib.util.find_spec(module)
            assert spec is not None, module
            packaged = spec.submodule_search_locations
            assert not packaged or (ROOT / module.replace(".", "/") / "__main__.py").is_file()


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_every_key_of_params_named_is_there(page: Path) -> None:
    sections = "|".join(shipped())
    named = rf"(?<![\w./-])(?:{sections})(?:\.[a-z0-9_<>-]+)+(?![\w@*.(-])"
    for code in code_of(page):
        for key in re.findall(named, code):
            section, *rest = key.split(".")
            values = [shipped()[section]]
            for place, part in enumerate(rest):
                if all(one == {} for one in values):  # its keys are the reader's own
                    break
                if place == 0 and section in NAMED:
                    values = list(values[0].values())
                else:
                    values = [one[part] for one in values if isinstance(one, dict) and part in one]
                    assert values, key


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_every_path_of_the_code_named_is_there(page: Path) -> None:
    for code in code_of(page):
        for path in re.findall(
            r"(?<![\w/.-])((?:pipeline|bench|tests|docs|\.github)/[\w./-]*)", code
        ):
            if f"{path}<" not in code:
                assert (ROOT / path).exists(), path


def test_every_name_of_the_code_in_the_design_page_is_there() -> None:
    code = "\n".join(each.read_text(encoding="utf-8") for each in (ROOT / "pipeline").rglob("*.py"))
    for span in code_of(Path("docs/design.md")):
        if re.fullmatch(r"[A-Z][A-Za-z_]+", span):
            assert re.search(rf"^(class {span}\b|{span}\b.* = )", code, re.MULTILINE), span


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_a_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in (*RUN, "yaml", "mermaid"), block
        reason = block.note.removeprefix("not run:")
        assert not block.note.startswith("not run") or len(reason.split()) > 2, block


@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_a_block_of_params_is_valid(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "yaml":
            data = copy.deepcopy(shipped())
            for section, entries in YAML(typ="safe").load(block.code).items():
                data[section] |= entries
            check_params(data, f"{page}:{block.line}")


def branch_of_dvc_yaml() -> set[tuple[str, str]]:
    """Return which stage reads what another one writes, within one locale."""
    # A locale is the key of a map, or an item of a list.
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8").replace("${item}", "${key}")
    text = text.replace("${reranking.run}", shipped()["reranking"]["run"])
    stages = YAML(typ="safe").load(text)["stages"]
    bodies = {name: body.get("do", body) for name, body in stages.items()}
    path = {
        name: [
            next(iter(one)) if isinstance(one, dict) else one
            for one in chain(body.get("outs", []), body.get("metrics", []))
        ]
        for name, body in bodies.items()
    }
    source = {"${sample.source}": shipped()["sample"]["source"]}
    return {
        (writer, reader)
        for reader, body in bodies.items()
        for dep in body["deps"]
        for writer, outs in path.items()
        for out in outs
        if f"{source.get(dep, dep)}/".startswith(f"{out}/") or f"{out}/".startswith(f"{dep}/")
    }


def test_the_graph_drawn_is_that_of_dvc_yaml() -> None:
    (block,) = (one for one in blocks_of(Path("docs/artefacts.md")) if one.language == "mermaid")
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)$", block.code, re.MULTILINE))
    assert drawn == branch_of_dvc_yaml()


def strings_of_the_code() -> list[str]:
    """Return all strings that are written in the code, parts of f-strings too."""
    return [
        node.value
        for path in (ROOT / "pipeline").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def quoted_messages() -> list[tuple[str, bool]]:
    """Return the messages of troubleshooting.md's first columns, and whether each is DVC's."""
    tokens = tokens_of(Path("docs/troubleshooting.md"))
    pairs = pairwise(tokens)
    cells = [after for token, after in pairs if token.type == "td_open"]
    return [
        (child.content, "(DVC)" in cell.content)
        for cell in cells[::2]
        for child in cell.children or ()
        if child.type == "code_inline" and " " in child.content
    ]


def test_every_message_quoted_is_one_that_the_code_prints() -> None:
    strings = strings_of_the_code()
    messages = [message for message, of_dvc in quoted_messages() if not of_dvc]
    assert messages
    for message in messages:
        assert any(message in one for one in strings), message


def test_every_message_quoted_as_dvc_s_is_one_that_dvc_prints() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for name in ("dvc", "hydra", "omegaconf")
        for place in importlib.util.find_spec(name).submodule_search_locations or ()  # type: ignore[union-attr]
        for path in Path(place).rglob("*.py")
    ]
    messages = [message for message, of_dvc in quoted_messages() if of_dvc]
    assert messages
    for message in messages:
        fixed = max(re.split(r"'[^']*'", message), key=len).strip()  # what is in quotes differs
        assert any(fixed in source for source in sources), message


def test_the_tables_between_markers_are_those_of_the_files_that_they_come_from() -> None:
    for name, page, source, change in readme.TABLES:
        text = (ROOT / page).read_text(encoding="utf-8")
        block = change((ROOT / source).read_text(encoding="utf-8"))
        assert readme.put_between_markers(text, name, block) == text, f"make readme ({page})"


def test_a_block_goes_between_its_markers_and_nowhere_else() -> None:
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
    once = readme.put_between_markers(text, "x", "new\n\n")
    assert once == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"
    assert readme.put_between_markers(once, "x", "new") == once


@pytest.mark.parametrize("text", ["", "<!-- x: end --><!-- x: begin -->", "<!-- x: begin -->"])
def test_missing_markers_are_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="x: begin"):
        readme.put_between_markers(text, "x", "new")


REPORT = """\
| locale | system | queries | ndcg@10 | recall@100 | judged@10 |
| --- | --- | ---: | ---: | ---: | ---: |
| us | random | 7 | 0.1 | 0.2 | 0.3 |
|  | bm25 |  | 0.4 | 0.5 | 0.6 |
| es | random | 8 | 1.1 | 1.2 | 1.3 |
|  | bm25 |  | 1.4 | 1.5 | 1.6 |
| mean | random |  | 2.1 | 2.2 | 2.3 |
|  | bm25 |  | 2.4 | 2.5 | 2.6 |
"""


def test_the_readme_shows_one_locale_the_means_and_three_measures() -> None:
    assert readme.shorten(REPORT) == (
        "| locale | system | ndcg@10 | recall@100 | judged@10 |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| es | random | 1.1 | 1.2 | 1.3 |\n"
        "|  | bm25 | 1.4 | 1.5 | 1.6 |\n"
        "| mean | random | 2.1 | 2.2 | 2.3 |\n"
        "|  | bm25 | 2.4 | 2.5 | 2.6 |\n"
    )


@pytest.mark.parametrize("lost", ["judged@10", "es", "mean"])
def test_a_report_without_what_the_readme_shows_is_refused(lost: str) -> None:
    with pytest.raises(PipelineError, match=lost):
        readme.shorten(REPORT.replace(lost, "other"))


@pytest.mark.parametrize("report", ["Nothing is measured: there are no judgements.\n", ""])
def test_a_report_without_a_table_is_refused(report: str) -> None:
    with pytest.raises(PipelineError, match="the report has no table"):
        readme.shorten(report)
