"""Terms are the same on any number of processes; a killed process is one message."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from pipeline.bm25 import analysers, counting, postings
from pipeline.bm25 import kept as bm25_kept
from pipeline.bm25 import stage as bm25
from pipeline.bm25 import texts as bm25_texts
from pipeline.bm25.analysers import Analyser, analyser_for
from pipeline.bm25.counting import Counted, Counter, count_terms
from pipeline.bm25.postings import WORKER_BYTES, Collection, Postings, collect
from pipeline.bm25.texts import count_products, terms_of_rows, worker_count
from pipeline.core import cache, files, languages, layout, tables
from pipeline.core.cache import forget
from pipeline.core.errors import PipelineError
from pipeline.core.workers import Workers
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean

WORDS = r"""
a b é ñ İ ı I ß Ǆ ﬁ 1 12 500ml 1,000 1.000 12,345,678 1,2345 1.5 0,5 3, 4. don't wi-fi a_b Ⅷ ½ ½x x²
漢字 ひらがな カタカナー 한국어 ไทย हिन्दी 空き缶 " ’ … ™ 😀 , . , . ; - _ ( ) / & '
"""
PARTS = [
    *WORDS.split(), " ", "e\u0301", "i\u0307", "\u0307", "\u0338", "<\u0338", "\u212a",
    "\u00a0", "\t", "\n", "\r\n", "\x0b", "\x1f", "\u3000", "\u200d",
]  # fmt: skip
"""What texts are made of here: also what looks like the border of a word and is none."""


def random_texts(rng: np.random.Generator, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        parts = rng.choice(PARTS, rng.integers(0, 40))
        spaces = np.where(rng.random(len(parts)) < 0.5, " ", "")
        texts.append("".join(part + space for part, space in zip(parts, spaces, strict=True)))
    return texts


def same(one: Counted, other: Counted) -> bool:
    numbers = ("having", "products", "times", "lengths")
    return one.terms == other.terms and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in numbers
    )


@pytest.mark.parametrize("language", ["en", "es", "de", "fr", "tr", "az", "zh", "any", "ja"])
def test_terms_counted_part_by_part_are_those_of_whole_texts(language: str) -> None:
    analyser = analyser_for(language)
    counter = Counter(analyser)
    for seed in range(3):
        texts = random_texts(np.random.default_rng(seed), 40 if language == "ja" else 700)
        found = counter.count(pa.array(texts, pa.string()))
        assert same(found, count_terms(map(analyser.terms, texts)))
        assert same(Counted.of_batch(found.batch()), found)
        some = counter.count(pa.array(texts, pa.string())[7:31])
        assert same(some, count_terms(map(analyser.terms, texts[7:31])))


def test_no_products_and_texts_without_terms_are_counted() -> None:
    counter = Counter(analyser_for("en"))
    for texts in ([], [""], ["?!", "", "..."]):
        found = counter.count(pa.array(texts, pa.string()))
        assert found.lengths.tolist() == [0] * len(texts)
        assert same(Counted.of_batch(found.batch()), found)


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Clean tables in a folder of their own; returns how many products there are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    rng = np.random.default_rng(8)
    write_clean(rng, 300, 20)
    path = layout.clean(LOCALE).products
    table = tables.read_table(path, tables.PRODUCTS, "")
    texts = pa.array([text or "zapato" for text in random_texts(rng, 300)])
    place = table.schema.get_field_index("text")
    tables.write_table(path, table.set_column(place, "text", texts), tables.PRODUCTS)
    return 300


def counted(analyser: Analyser, products: int, threads: int) -> Postings:
    runtime = params({"runtime.threads": threads}).runtime
    return collect(count_products(LOCALE, analyser, products, runtime))


@pytest.mark.slow
def test_any_number_of_processes_and_any_pieces_give_the_same_postings(
    clean: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language, ways in (("es", [(1, 7), (3, 29)]), ("ja", [(2, 37)])):
        analyser = analyser_for(language)
        whole = counted(analyser, clean, 1)
        for threads, piece in ways:
            monkeypatch.setattr(bm25_texts, "PIECE_PRODUCTS", piece)
            monkeypatch.setattr(bm25_texts, "JAPANESE_PIECE_PRODUCTS", piece)
            found = counted(analyser, clean, threads)
            assert list(found.vocabulary.items()) == list(whole.vocabulary.items())
            for name in ("starts", "products", "times", "lengths"):
                np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_few_pieces_and_little_memory_are_counted_by_one_process() -> None:
    runtime = params({"runtime.threads": 8, "runtime.memory_limit": None}).runtime
    for analyser, size in (
        ("snowball-es", bm25_texts.PIECE_PRODUCTS),
        ("sudachi-bigrams", bm25_texts.JAPANESE_PIECE_PRODUCTS),
    ):
        fewest = (bm25_texts.FEWEST_PIECES - 1) * size
        assert worker_count(analyser, fewest, runtime) == 0
        assert worker_count(analyser, fewest + 1, runtime) > 1
    limit = 4 * WORKER_BYTES / 1e9
    for room, workers in ((3, 3), (1, 0)):
        few = params({"runtime.threads": 8, "runtime.memory_limit": room * limit}).runtime
        assert worker_count("words", 10**6, few) == workers
    assert worker_count("words", 10**6, params({"runtime.threads": 1}).runtime) == 0


def test_the_memory_of_processes_that_count_is_part_of_what_the_limit_allows(clean: int) -> None:
    analyser, limits = analyser_for("es"), params({"runtime.memory_limit": 1.0})
    found = Collection(products=1, postings=1)
    bm25_kept.memory_check(limits, LOCALE, analyser, 1, 1, workers=2)(found)
    with pytest.raises(PipelineError, match=r"would take 1\.1 GB"):
        bm25_kept.memory_check(limits, LOCALE, analyser, 1, 1, workers=3)(found)


@pytest.mark.slow
def test_a_worker_that_fails_is_a_bug_and_one_that_is_killed_a_message() -> None:
    batch = pa.record_batch({"text": ["zapato"]})
    with (
        pytest.raises(RuntimeError, match=r"it: pipeline\.bm25\.worker es failed .*status 1"),
        Workers("pipeline.bm25.worker", ["es"], 1, "it") as workers,
    ):
        list(workers.map([pa.record_batch({"other": ["zapato"]})], waiting=1))
    real_time = signal.SIGRTMIN + 1
    with Workers("pipeline.bm25.worker", ["es"], 1, "it") as workers:
        assert len(list(workers.map([batch], waiting=1))) == 1
        for child in psutil.Process().children():
            if "pipeline.bm25.worker" in child.cmdline():
                child.send_signal(real_time)
        with pytest.raises(PipelineError, match=rf"ended early \(found signal {real_time:d}\)"):
            list(workers.map([batch], waiting=1))


RUN = """
import sys
from pipeline.bm25 import texts
from pipeline.bm25.stage import bm25
from pipeline.core import stage
texts.PIECE_PRODUCTS = texts.JAPANESE_PIECE_PRODUCTS = 2
sys.argv[1:] = ["--locale", "es"]
sys.exit(stage.run_locales("bm25", bm25))
"""


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["worker", "stage", "group"])
def test_a_kill_leaves_one_message_no_process_and_no_file(clean: int, whom: str) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("es: es", "es: ja")
    Path("params.yaml").write_text(text.replace("  threads: 0", "  threads: 2"), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", RUN], stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        stage = psutil.Process(process.pid)
        workers: list[psutil.Process] = []
        while len(workers) < 2 and process.poll() is None:
            time.sleep(0.01)
            workers = stage.children()
        if whom == "worker":
            workers[0].kill()
        elif whom == "stage":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert not layout.runs("bm25", LOCALE).folder.exists()
    assert not [*Path(".cache").rglob("*.npy")]
    if whom == "worker":
        assert process.returncode == 1
        assert told.splitlines() == [
            "error in bm25: bm25's terms of the es products: one of 2 processes for it ended early "
            "(found signal SIGKILL). Run it again; if it had too little memory, with a smaller "
            "runtime.threads."
        ]
    elif whom == "group":
        assert process.returncode == 130
        assert len(told.splitlines()) == 1


def test_products_that_are_replaced_while_they_are_read_are_refused(
    clean: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PipelineError, match=r"products.parquet was replaced while it was read"):
        bm25_kept.open_postings(params(), LOCALE, analyser_for("es"), clean, "0" * 64)
    assert not [*Path(".cache").rglob("*.npy")]


def test_the_terms_of_some_rows_are_those_of_their_texts(
    clean: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bm25_texts, "BATCH_TEXTS", 41)
    analyser = analyser_for("es")
    texts = tables.read_column(layout.clean(LOCALE).products, tables.PRODUCTS, "text", "")
    every = list(map(analyser.terms, texts.to_pylist()))
    rows = np.array([299, 3, 41, 40, 3, 0])
    assert terms_of_rows(LOCALE, rows, analyser) == {row: every[row] for row in rows.tolist()}


def _runs() -> dict[str, str]:
    folder = layout.runs("bm25", LOCALE).folder
    return {path.name: files.sha256_file(path) for path in sorted(folder.iterdir())}


def test_kept_postings_give_the_same_runs_and_damage_makes_them_again(
    clean: int, caplog: pytest.LogCaptureFixture
) -> None:
    def run(reused: int, **settings: float) -> dict[str, str]:
        caplog.clear()
        bm25.bm25(params({f"bm25.{name}": value for name, value in settings.items()}), LOCALE)
        assert f" reused={reused} " in caplog.text
        return _runs()

    caplog.set_level("INFO", "pipeline")
    first = run(0)
    other = run(clean, k1=0.4, b=0.3)
    assert other != first
    assert run(clean) == first
    (folder,) = filter(Path.is_dir, layout.postings("").folder.iterdir())
    for path in sorted(folder.iterdir()):
        good, stamp = path.read_bytes(), path.stat()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        # As a disk does it that loses a bit: size and time of change say nothing.
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert run(0, k1=0.4, b=0.3) == other
        assert "made again" in caplog.text or "built again" in caplog.text
        assert path.read_bytes() == good
    path.unlink()
    assert run(0) == first


def test_languages_without_a_stemmer_have_postings_of_their_own(clean: int) -> None:
    bm25.bm25(params({"language.es": "hi"}), LOCALE)  # 1,000 is 1000
    mine = _runs()
    bm25.bm25(params({"language.es": "any"}), LOCALE)
    assert len([*filter(Path.is_dir, layout.postings("").folder.iterdir())]) == 2
    bm25.bm25(params({"language.es": "hi"}), LOCALE)
    assert _runs() == mine


def test_postings_of_other_texts_are_not_used_under_a_wrong_name(
    clean: int, caplog: pytest.LogCaptureFixture
) -> None:
    bm25.bm25(params(), LOCALE)
    mine = _runs()
    bm25.bm25(params({"language.es": "de"}), LOCALE)
    (one, other) = sorted(
        filter(Path.is_dir, layout.postings("").folder.iterdir()), key=lambda p: p.stat().st_mtime
    )
    for path in other.iterdir():
        (one / path.name).write_bytes(path.read_bytes())
        os.utime(one / path.name, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    seal = other.with_name(f".{other.name}.seal.json")
    one.with_name(f".{one.name}.seal.json").write_bytes(seal.read_bytes())
    bm25.bm25(params(), LOCALE)
    assert "is of other texts; the terms are made again" in caplog.text
    assert _runs() == mine


def test_changed_code_that_decides_the_postings_makes_them_again(
    clean: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "pipeline")
    for module in (analysers, counting, postings, bm25_texts, languages, bm25_kept):
        changed = Path(f"{module.__name__}.py")
        changed.write_bytes(Path(str(module.__file__)).read_bytes() + b"# changed\n")
        for reused in (0, clean):
            bm25.bm25(params(), LOCALE)
            assert caplog.text.splitlines()[-1].count(f" reused={reused} ")
        monkeypatch.setattr(module, "__file__", str(changed))
    bm25.bm25(params(), LOCALE)
    assert caplog.text.splitlines()[-1].count(" reused=0 ")


def test_postings_that_another_process_deletes_are_made_again_without_a_warning(
    clean: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bm25.bm25(params(), LOCALE)
    mine, found, gone = _runs(), cache.keep, list[Path]()

    def keep_and_lose(folder: Path, make: Callable[[Path], None], locales: int) -> dict[str, str]:
        digests = found(folder, make, locales)
        if not gone:
            forget(folder)
            gone.append(folder)
        return digests

    monkeypatch.setattr(cache, "keep", keep_and_lose)
    caplog.clear()
    bm25.bm25(params(), LOCALE)
    assert gone[0].is_dir()
    assert "warning" not in caplog.text
    assert _runs() == mine


def test_a_cache_that_cannot_be_written_costs_a_message_alone(
    clean: int, caplog: pytest.LogCaptureFixture
) -> None:
    layout.postings("").folder.parent.mkdir(parents=True)
    layout.postings("").folder.write_bytes(b"")
    bm25.bm25(params(), LOCALE)
    assert "warning: the es terms are not kept for the next run: " in caplog.text
    assert layout.runs("bm25", LOCALE).card.exists()
