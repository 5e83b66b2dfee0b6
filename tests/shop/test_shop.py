"""The command: from a shop's tables to a source that `sample` and `clean` take."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.clean.stage import clean
from pipeline.core import layout
from pipeline.core.params_file import load_params
from pipeline.sample.stage import sample
from pipeline.shop.command import evaluated, main
from tests.conftest import RunStage

PRODUCTS = (
    "sku;name;text\n"
    "001;Roter Schuh;Leder\n002;Blauer Schuh;Stoff\n003;Grüner Hut;\n"
    '004;Hut, rot;"Filz &amp; Wolle"\n'
)
LABELS = (
    '{"query": "roter schuh", "product": "001", "grade": "exact"}\n'
    '{"query": "roter schuh", "product": "002", "grade": "partial"}\n'
    '{"query": "hut", "product": "003", "grade": "exact"}\n'
    '{"query": "hut", "product": "001", "grade": "none"}\n'
)
ARGUMENTS = (
    "products.csv", "labels.jsonl", "--locale", "de",
    "--column", "product_title=name", "--column", "product_bullet_point=text",
    "--label", "exact=E", "--label", "partial=S", "--label", "none=I",
)  # fmt: skip
Command = Callable[..., "Done"]
IDS = ("--column", "product_id=sku", "--column", "esci_label=grade")


@dataclass(frozen=True)
class Done:
    returncode: int
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs the command in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["shop", *arguments])
        return Done(main(), capsys.readouterr().err)

    return run


@pytest.fixture
def shop(project: Path) -> Path:
    (project / "products.csv").write_text(PRODUCTS, encoding="utf-8")
    judged = LABELS.replace('"product":', '"sku":')
    (project / "labels.jsonl").write_text(judged, encoding="utf-8")
    return project


@pytest.mark.slow
def test_one_command_makes_a_source_that_the_next_stages_take(
    shop: Path, run_stage: RunStage
) -> None:
    done = run_stage("shop", *ARGUMENTS, *IDS)
    assert done.returncode == 0, done.stderr
    params = load_params()
    assert params.locales == ("de",)
    assert params.language == {"de": "de"}
    assert params.sample.source == "data/shop"
    sample(params)
    clean(params, "de")
    texts = pq.read_table(layout.clean("de").products).to_pydict()
    assert dict(zip(texts["product_id"], texts["text"], strict=True)) == {
        "001": "Roter Schuh Leder", "002": "Blauer Schuh Stoff", "003": "Grüner Hut",
        "004": "Hut, rot Filz & Wolle",
    }  # fmt: skip
    judged = pq.read_table(layout.clean("de").judgements)
    pairs = zip(judged["product_id"].to_pylist(), judged["label"].to_pylist(), strict=True)
    assert sorted(pairs) == [("001", "E"), ("001", "I"), ("002", "S"), ("003", "E")]
    assert params.sample.splits == ("test",)
    copies = {"products.csv": "products.csv", "judgements.jsonl": "labels.jsonl"}
    for copy, given in copies.items():
        assert (shop / "data/shop" / copy).read_bytes() == (shop / given).read_bytes()
    before = (shop / "params.yaml").read_bytes()
    source = {path.name: path.read_bytes() for path in (shop / "data/shop").iterdir()}
    assert run_stage("shop", *ARGUMENTS, *IDS).returncode == 0
    assert (shop / "params.yaml").read_bytes() == before
    assert {path.name: path.read_bytes() for path in (shop / "data/shop").iterdir()} == source


def test_a_second_run_keeps_what_was_chosen_for_the_locale_and_the_sources(
    shop: Path, command: Command
) -> None:
    assert command(*ARGUMENTS, *IDS, "--language", "any").returncode == 0
    text = (shop / "params.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("encoder:\n  de: e5-small-q4", "encoder:\n  de: labse"),
        ("de: flat", "de: hnsw"),
    ):
        assert old in text
        text = text.replace(old, new)
    (shop / "params.yaml").write_text(text, encoding="utf-8")
    (shop / "data/shop" / layout.SOURCES_FILE).write_text("query_id,source\n1,x\n")
    done = command(*ARGUMENTS, *IDS)
    assert "language=any encoder=labse" in done.stderr
    assert (shop / "params.yaml").read_text(encoding="utf-8") == text
    assert (shop / "data/shop" / layout.SOURCES_FILE).read_text() == "query_id,source\n1,x\n"

    assert command(*ARGUMENTS, *IDS, "--encoder", "e5-small-q4").returncode == 0
    assert load_params().encoder == {"de": "e5-small-q4"}
    assert load_params().index == {"de": "flat"}


def test_what_sample_or_clean_would_refuse_is_refused_before_anything_is_written(
    shop: Path, command: Command
) -> None:
    before = (shop / "params.yaml").read_bytes()
    labels = (shop / "labels.jsonl").read_text(encoding="utf-8")
    conflict = '{"query": "hut ", "sku": "003", "grade": "none"}\n'
    for products, judged, said in (
        (PRODUCTS + "001;Anderer Schuh;\n", labels, "product_id '001' of locale de appears twice"),
        (PRODUCTS, labels + conflict, "must have one label"),
        (PRODUCTS, labels.replace('"sku": "00', '"sku": "'), "judgements have product_id '1', pro"),
        (PRODUCTS.splitlines()[0] + "\n", labels, "products.csv has no rows"),
        (
            "product_locale;" + PRODUCTS.replace("\n", "\nfr;")[:-3], labels,
            "Use --locale fr, or add rows of de",
        ),
    ):  # fmt: skip
        (shop / "products.csv").write_text(products, encoding="utf-8")
        (shop / "labels.jsonl").write_text(judged, encoding="utf-8")
        done = command(*ARGUMENTS, *IDS)
        assert done.returncode == 1
        assert said in done.stderr, done.stderr
        assert (shop / "params.yaml").read_bytes() == before
        assert not (shop / "data/shop").exists()
        assert not list(shop.glob("*partial*"))


def test_tables_that_the_command_did_not_write_are_never_replaced(
    shop: Path, command: Command
) -> None:
    (shop / "mine").mkdir()
    (shop / "mine/products.csv").write_text("by hand")
    done = command(*ARGUMENTS, *IDS, "--out", "mine")
    assert "products.csv in it would be lost" in done.stderr
    assert (shop / "mine/products.csv").read_text() == "by hand"


def test_locales_that_were_explored_before_are_left_out_and_the_shops_own_stays(
    shop: Path, command: Command
) -> None:
    for explored, left in (("[us, es]", ()), ("[de]", ("de",))):
        text = (shop / "params.yaml").read_text(encoding="utf-8")
        changed = re.sub(
            r"^explore: .*(?:\n- .*)*", f"explore: {explored}", text, flags=re.MULTILINE
        )
        (shop / "params.yaml").write_text(changed, encoding="utf-8")
        done = command(*ARGUMENTS, *IDS)
        assert done.returncode == 0, done.stderr
        assert load_params().explore == left


def test_what_does_not_fit_is_one_message_and_nothing_is_written(
    shop: Path, command: Command
) -> None:
    before = (shop / "params.yaml").read_bytes()
    (shop / "kept").mkdir()
    (shop / "kept/mine.txt").touch()
    (shop / "dir.csv").mkdir()
    (shop / "loop.csv").symlink_to("loop.csv")
    for arguments, said in (
        (ARGUMENTS, "column product_id is missing"),
        ((*ARGUMENTS, *IDS, "--column", "product_colour=x"), "did you mean 'product_color'"),
        (
            (*ARGUMENTS, *IDS, "--column", "product_color=x"),
            "--column names 'x' for product_color, which is not there",
        ),
        ((*ARGUMENTS, *IDS, "--column", "x"), "--column x: must be NAME=COLUMN, such as"),
        ((*ARGUMENTS, *IDS, "--label", "exact="), "--label exact=: must be VALUE=LABEL, such as"),
        ((*ARGUMENTS, "--column", "product_id=sku"), "such as `--column product_title=NAME`"),
        ((*ARGUMENTS[:-2], *IDS), "holds 'none' (query 'hut', product_id '001')"),
        ((*ARGUMENTS, *IDS, "--column", "query_id=sku"), "'sku' is named for product_id and for"),
        (("products.txt", *ARGUMENTS[1:]), "products.txt: the name must end in .parquet, .csv"),
        (("absent.csv", *ARGUMENTS[1:], *IDS), "absent.csv is missing. Name another file."),
        (("dir.csv", *ARGUMENTS[1:], *IDS), r"dir.csv must be a file (found a folder). Name ano"),
        (("loop.csv", *ARGUMENTS[1:], *IDS), "symbolic links: 'loop.csv'). Name another file."),
        ((*ARGUMENTS, *IDS, "--label", "exact=S"), "--label exact is given twice"),
        (
            (*ARGUMENTS, *IDS, "--label", "good=G"),
            "sample.labels.good: must be 'E', 'S', 'C' or 'I' (found 'G')",
        ),
        ((*ARGUMENTS, *IDS, "--encoder", "no-such"), "no-such"),
        ((*ARGUMENTS, *IDS, "--out", "data/sample"), "data/sample"),
        ((*ARGUMENTS, *IDS, "--out", "."), "--out ."),
        ((*ARGUMENTS, *IDS, "--out", "data"), "--out data: must not contain data/"),
        ((*ARGUMENTS, *IDS, "--out", "data/x~"), "--out data/x~: .dvcignore hides it from DVC"),
        ((*ARGUMENTS, *IDS, "--out", "kept"), "mine.txt in it would be lost"),
        ((*ARGUMENTS, *IDS, "--encoder", ""), "encoder.de"),
        ((*ARGUMENTS, *IDS, "--language", ""), "language.de"),
        ((*ARGUMENTS, *IDS, "--locale", "x" * 300), "60 at most"),
        ((*ARGUMENTS, *IDS, "--locale", "De"), "the locale 'De': must be of small letters"),
    ):
        done = command(*arguments)
        assert done.returncode == 1, arguments
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert not (shop / "data/shop").exists()
        assert (shop / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("columns", [(), IDS, ("--column", "nonsense=sku"), ("--column", "x")])
@pytest.mark.parametrize("at", [0, 1])
def test_a_file_that_cannot_be_read_is_told_before_any_column(
    shop: Path, command: Command, at: int, columns: tuple[str, ...]
) -> None:
    (shop / "empty.csv").touch()
    for name, said in (
        ("absent.csv", "absent.csv is missing. Name another file."),
        ("empty.csv", "empty.csv is empty (0 bytes)."),
    ):
        tables = list(ARGUMENTS[:2])
        tables[at] = name
        done = command(*tables, "--locale", "de", *columns)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error in shop: {said}"), done.stderr


@pytest.mark.parametrize("at", [0, 1])
def test_a_damaged_file_is_told_before_a_column_that_the_other_lacks(
    shop: Path, command: Command, at: int
) -> None:
    (shop / "damaged.parquet").write_bytes(b"PAR1 and no more")
    tables = list(ARGUMENTS[:2])
    tables[at] = "damaged.parquet"
    done = command(*tables, "--locale", "de")
    assert done.returncode == 1
    assert "damaged.parquet is not readable as parquet" in done.stderr


def test_tables_that_nothing_can_be_measured_by_are_refused(shop: Path, command: Command) -> None:
    products, labels = shop / "products.csv", shop / "labels.jsonl"
    judged = labels.read_text()
    silent = (
        judged.replace("roter schuh", "\u200b").replace("hut", " ").replace('"001"', '"004"', 1)
    )
    for text, said in (
        (judged.replace("exact", "none").replace("partial", "none"), "labelled E, S, C, so no"),
        (silent, "queries has a text"),
    ):
        labels.write_text(text, encoding="utf-8")
        done = command(*ARGUMENTS, *IDS)
        assert done.returncode == 1, said
        assert said in done.stderr
    labels.write_text(judged.replace('"query": "hut"', '"query": " "'))
    done = command(*ARGUMENTS, *IDS)
    assert done.returncode == 0
    assert "labels.jsonl: 1 of 2 queries have no text, and are left out" in done.stderr
    products.write_text("sku;name;text\n001; ;<br>\n002;;\n003;;\n", encoding="utf-8")
    done = command(*ARGUMENTS, *IDS)
    assert done.returncode == 1
    assert "products.csv: none of the 3 products has a text in product_title" in done.stderr


def test_train_queries_are_evaluated_only_where_there_are_no_others() -> None:
    assert evaluated({"train", "test"}) == evaluated({"test"}) == ["test"]
    assert evaluated({"train"}) == ["train"]
