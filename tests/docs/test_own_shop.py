"""The shop of docs/catalogue.md: from its two CSV files to the metrics that the page quotes."""

import logging
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.core.params_file import load_params
from pipeline.shop.command import main
from tests.helpers.artefacts import ROOT
from tests.helpers.pages import Block, blocks_of

STAGES = ("sample", "clean", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate")
PAGE = Path("docs/catalogue.md")

pytestmark = [pytest.mark.slow, pytest.mark.weights]


def example() -> tuple[list[str], list[str]]:
    """Return the commands of the page's example, and what it quotes of their output."""

    def is_it(block: Block) -> bool:
        return block.language == "console" and "pipeline.shop" in block.code

    (block,) = filter(is_it, blocks_of(PAGE))
    lines = block.code.replace("\\\n", "").splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return commands, [line for line in lines if not line.startswith("$ ") and line != "…"]


def test_two_commands_lead_from_csv_to_the_metrics_that_the_page_quotes(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", os.environ.get("PIPELINE_CACHE", str(ROOT / ".cache")))
    (project / "docs").mkdir()
    (project / "docs/shop").symlink_to(ROOT / "docs/shop")
    commands, quoted = example()
    assert len(commands) == 2
    assert commands[1] == "make repro"

    monkeypatch.setattr(sys, "argv", shlex.split(commands[0])[2:])
    assert main() == 0
    printed = capsys.readouterr()
    with caplog.at_level(logging.INFO, logger="pipeline"):
        params = load_params()
        for name in STAGES:
            body = getattr(import_module(f"pipeline.{name}.stage"), name)
            body(params) if name == "sample" else body(params, "de")

    said = [*printed.err.splitlines(), *printed.out.splitlines(), *caplog.messages]
    assert [line for line in quoted if line not in said] == []
