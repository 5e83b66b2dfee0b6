"""embed as a real process with a tiny model: rows, reuse, damage, kills, full disks."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from bench import proofs
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.cpu import bfloat16_instructions
from pipeline.core.params_file import load_params
from pipeline.embed.fill import GROUP_TEXTS
from pipeline.embed.rates import PROBE_TEXTS
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.text.normalise import join_fields
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import read_vectors
from tests.conftest import RunStage
from tests.helpers.artefacts import LOCALE, ROOT, write_clean, write_sources
from tests.helpers.disks import small_disk
from tests.helpers.tiny_models import build_model

pytestmark = pytest.mark.slow  # stages as processes

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Results = Callable[[], Run]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model and one whose weights are NaN."""
    folder = tmp_path_factory.mktemp("models")
    build_model(folder / "sound", seed=1)
    build_model(folder / "broken", seed=1, nan=True)
    build_model(folder / "prompted", seed=1, prompts={"query": "q: ", "document": "d: "})
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted models are kept, each once they were converted."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def run(
    project: Path,
    run_stage: RunStage,
    monkeypatch: pytest.MonkeyPatch,
    models: Path,
    engines: Path,
) -> Run:
    """Return what runs a stage in a folder with clean tables of 250 products.

    `changes` are to the encoder's entry, or, as dotted paths, to other sections.
    """
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    (project / "cache").mkdir()
    (project / "cache/engines").symlink_to(engines)
    write_clean(np.random.default_rng(0), 250, 20)

    def run(
        name: str = "embed",
        model: str = "sound",
        changes: "Mapping[str, Any] | None" = None,
        preexec_fn: Callable[[], None] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> "subprocess.CompletedProcess[str]":
        yaml = YAML()
        data = yaml.load(ROOT / "params.yaml")
        encoder = data["encoders"]["e5-small-q4"]
        encoder["weights"] = {"kind": "folder", "path": str(models / model)}
        encoder["max_tokens"] = 64
        data["embed"]["shard_rows"] = 100
        data["runtime"]["threads"] = 1
        for path, value in (changes or {}).items():
            section, _, key = path.rpartition(".")
            (data[section] if section else encoder)[key] = value
        yaml.dump(data, project / "params.yaml")
        return run_stage(name, "--locale", LOCALE, *arguments, preexec_fn=preexec_fn)

    return run


@pytest.fixture(scope="module")
def all_artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the artefacts of all stages are kept, once they are made."""
    return tmp_path_factory.mktemp("artefacts") / "made"


@pytest.fixture
def results(run: Run, all_artefacts: Path, project: Path) -> Results:
    """Return what fills the folder with the artefacts of all stages, made once."""

    def fill() -> Run:
        if not all_artefacts.exists():
            write_sources({})
            for stage in ("embed", "index", "retrieve", "bm25", "hybrid", "evaluate"):
                done = run(stage)
                assert done.returncode == 0, done.stderr
            shutil.copytree(project, all_artefacts, symlinks=True)
        (project / "cache/engines").unlink(missing_ok=True)
        shutil.copytree(all_artefacts, project, symlinks=True, dirs_exist_ok=True)
        return run

    return fill


def _fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _encoded(done: "subprocess.CompletedProcess[str]") -> list[int]:
    """Return how many products and queries a run encoded."""
    assert done.returncode == 0, done.stderr
    return [int(number) for number in re.findall(r" encoded=(\d+) ", done.stderr)]


def _encoder() -> TextEncoder:
    """Return the encoder that the last run was of."""
    params = load_params()
    contract = params.encoder_of(LOCALE)
    return load_encoder(contract, resolve_weights(contract, "e5-small-q4"), params.runtime)


def _products() -> Matrix:
    """Return the products' vectors."""
    return read_vectors(read_manifest(load_params(), LOCALE), "products", LOCALE)


def _write_texts(texts: Sequence[str], ends: "Sequence[list[int]] | None" = None) -> None:
    """Give the products of the clean table other texts, all of the first field without `ends`."""
    path = layout.clean(LOCALE).products
    ids = tables.read_table(path, tables.PRODUCTS, "")["product_id"]
    fields = len(load_params().clean.fields)
    ends = ends or [[len(text)] * fields for text in texts]
    columns = {"product_id": ids, "text": list(texts), "field_ends": ends}
    tables.write_table(path, pa.table(columns, tables.PRODUCTS), tables.PRODUCTS)


def _refused(done: "subprocess.CompletedProcess[str]") -> str:
    """Check that a run ended with one message; return it."""
    assert done.returncode == 1, done.stderr
    (message,) = done.stderr.strip().splitlines()
    return message


def test_row_i_of_the_shards_is_the_vector_of_row_i_of_the_clean_table(
    run: Run,
) -> None:
    assert _encoded(run()) == [250, 20]
    encoder, manifest = _encoder(), read_manifest(load_params(), LOCALE)
    assert [shard.rows for shard in manifest.products.shards] == [100, 100, 50]
    texts = [f"texto {row}" for row in range(250)]
    np.testing.assert_array_equal(_products(), encoder.encode_passages(texts))
    queries = read_vectors(manifest, "queries", LOCALE)
    asked = [f"consulta {row}" for row in range(20)]
    np.testing.assert_array_equal(queries, encoder.encode_queries(asked))
    swapped = np.abs(queries - encoder.encode_passages(asked)).max()
    assert swapped > 1e-3  # queries have a prefix of their own


def test_the_manifest_has_the_whole_contract_and_nothing_of_the_machine(
    run: Run, models: Path
) -> None:
    run()
    text = layout.embeddings(LOCALE).manifest.read_text()
    manifest = json.loads(text)
    assert manifest["contract"]["query_prefix"] == "query: "
    assert manifest["encoder"] == "e5-small-q4"
    assert manifest["dimension"] == 32
    assert manifest["engine"] == "openvino-cpu"
    assert os.uname().nodename not in text
    assert str(models) not in text


def test_nothing_is_encoded_twice_and_then_no_engine_is_loaded(run: Run) -> None:
    assert _encoded(run()) == [250, 20]
    before = _fingerprint(Path("data"))
    shutil.rmtree(layout.embeddings(LOCALE).folder)
    for name in ("torch", "openvino", "tokenizers"):  # whoever imports them now fails
        Path(f"{name}.py").write_text("raise RuntimeError('imported')\n")
    assert _encoded(run()) == [0, 0]
    assert _fingerprint(Path("data")) == before


def test_an_edited_product_and_a_larger_sample_encode_only_what_is_new(run: Run) -> None:
    run()
    texts = [f"texto {row}" for row in range(250)]
    texts[17] = "otra cosa"
    _write_texts(texts)
    assert _encoded(run()) == [1, 0]
    write_clean(np.random.default_rng(1), 400, 30)
    assert _encoded(run()) == [150, 10]
    larger = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    assert _encoded(run()) == [400, 30]
    assert _fingerprint(layout.embeddings(LOCALE).folder) == larger


def test_equal_texts_are_encoded_once(run: Run) -> None:
    rows = np.arange(250) % 9
    _write_texts([f"texto {row}" for row in rows])
    assert _encoded(run()) == [9, 20]
    np.testing.assert_array_equal(_products(), _products()[:9][rows])


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": 8},
        {"normalize": False},
        {"similarity": "l2"},
        {"embed.dtype": "float16"},
        {"dimension": 8, "normalize": False, "similarity": "dot", "embed.dtype": "float16"},
    ],
)
def test_what_is_done_to_a_vector_afterwards_encodes_nothing_again(
    run: Run, change: dict[str, Any]
) -> None:
    run()
    assert _encoded(run(changes=change)) == [0, 0]
    reused = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    assert _encoded(run(changes=change)) == [250, 20]
    assert _fingerprint(layout.embeddings(LOCALE).folder) == reused


def _damage(namespace: str) -> str:
    """Flip a bit of a value in the largest segment of vectors (x32) or token counts (x6)."""
    path = max(Path("cache/vectors").glob(f"*/*{namespace}.npy"), key=lambda it: it.stat().st_size)
    damaged = bytearray(path.read_bytes())
    damaged[-50] ^= 4
    path.write_bytes(damaged)
    return path.name


@pytest.mark.parametrize("namespaces", [["x32"], ["x6"], ["x32", "x6"]])
def test_a_damaged_entry_of_the_store_is_reported_and_computed_again(
    run: Run, namespaces: list[str]
) -> None:
    run()
    before = _fingerprint(Path("data"))
    damaged = [_damage(namespace) for namespace in namespaces]
    done = run()
    # What the plan did not know of: a value is checked when it is read.
    assert _encoded(done) == [int("x32" in namespaces), 0]
    assert _fingerprint(Path("data")) == before
    after = run().stderr
    for name in damaged:
        assert name in done.stderr
        assert name not in after


def test_a_plan_says_what_a_run_then_does_and_writes_no_vectors(run: Run) -> None:
    done = run(arguments=("--plan",))
    assert done.returncode == 0, done.stderr
    assert not layout.embeddings(LOCALE).folder.exists()
    planned = [int(number) for number in re.findall(r" to_encode=(\d+) ", done.stderr)]
    assert planned == [250 - PROBE_TEXTS, 0]  # what it measured its rate with is kept
    assert _encoded(run()) == planned


def test_a_plan_where_a_rate_is_known_encodes_nothing(run: Run) -> None:
    run()
    _write_texts([f"otro {row}" for row in range(250)])
    done = run(arguments=("--plan",))
    assert re.findall(
        r" (\w+)=(\d+) distinct=(\d+) reused=(\d+) to_encode=(\d+) ", done.stderr
    ) == [
        ("products", "250", "250", "0", "250"),
        ("queries", "20", "20", "20", "0"),
    ]
    assert _encoded(run()) == [250, 0]


def test_a_plan_says_what_other_precisions_take_if_that_was_measured_here(run: Run) -> None:
    run()
    _write_texts([f"otro {row}" for row in range(250)])
    done = run(arguments=("--plan",))
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r" precision=(\w+) seconds=(.*)", done.stderr))
    assert found.pop("int8") == "unknown (never run here)"
    assert found.keys() == ({"bfloat16"} if bfloat16_instructions() else set())
    assert all(seconds.isdigit() for seconds in found.values())


def test_what_max_tokens_cuts_off_is_counted_by_field_as_the_tokenizer_counts_it(
    run: Run, models: Path
) -> None:
    run()  # params.yaml
    names = load_params().clean.fields
    rng = np.random.default_rng(5)
    letters = np.array(list("ab ñ日🎁"))
    joined = [
        join_fields(["".join(rng.choice(letters, rng.integers(0, 9))) for _ in names], " | ")
        for _ in range(250)
    ]
    joined = [(text or "x", ends if text else [1] * len(names)) for text, ends in joined]
    _write_texts([text for text, _ in joined], [ends for _, ends in joined])
    run(changes={"max_tokens": 24})

    tokenizer = AutoTokenizer.from_pretrained(models / "sound")
    prefix, tokens, lost = "passage: ", 0, dict.fromkeys(names, 0)
    texts_cut, cut_anywhere = dict.fromkeys(names, 0), 0
    for text, ends in joined:
        read = tokenizer(prefix + text, return_offsets_mapping=True)["offset_mapping"]
        tokens += len(read)
        cut = [begin - len(prefix) for begin, _ in read[1:-1][24 - 2 :]]
        fields = [
            next(name for name, end in zip(names, ends, strict=True) if at < end) for at in cut
        ]
        cut_anywhere += bool(cut)
        for name in names:
            lost[name] += fields.count(name)
            texts_cut[name] += name in fields
    manifest = json.loads(layout.embeddings(LOCALE).manifest.read_text())
    assert manifest["truncation"]["products"] == {
        "texts": 250,
        "texts_cut": cut_anywhere,
        "tokens": tokens,
        "tokens_cut": sum(lost.values()),
        "fields": {
            name: {"texts_cut": texts_cut[name], "tokens_cut": lost[name]} for name in names
        },
    }
    assert 0 < cut_anywhere < 250
    assert len(set(lost.values())) > 1


def test_a_text_of_a_megabyte_is_read_as_far_as_max_tokens_goes(run: Run) -> None:
    run()
    texts = [f"texto {row}" for row in range(250)]
    texts[17] = "ab" * 2**19
    _write_texts(texts)
    assert _encoded(run()) == [1, 0]
    np.testing.assert_array_equal(_products()[17:18], _encoder().encode_passages(["ab" * 100]))
    manifest = json.loads(layout.embeddings(LOCALE).manifest.read_text())
    assert manifest["truncation"]["products"]["texts_cut"] == 1
    assert manifest["truncation"]["products"]["tokens_cut"] == 2**20 + len("passage: ") - (64 - 2)


def _watched(folder: Path) -> "subprocess.Popen[str]":
    """Start embed as a process that counts the texts it computes in the file `computed`."""
    return subprocess.Popen(
        [sys.executable, "-c", "from bench import proofs; proofs.watched_embed()"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_kill_at_any_moment_repeats_a_group_at_most_and_changes_no_byte(
    run: Run, project: Path
) -> None:
    assert proofs.LOCALE == LOCALE
    write_clean(np.random.default_rng(2), 4_000, 20)
    assert _encoded(run()) == [4_000, 20]
    before = _fingerprint(layout.embeddings(LOCALE).folder)
    computed = project / "computed"
    for moment in np.random.default_rng(3).integers(1_000, 4_000, 4):
        shutil.rmtree("cache/vectors")
        shutil.rmtree(layout.embeddings(LOCALE).folder)
        computed.write_bytes(b"")
        with _watched(project) as process:
            while process.poll() is None and computed.stat().st_size < moment:
                time.sleep(0.0005)
            process.kill()
        assert not layout.embeddings(LOCALE).folder.exists()
        with _watched(project) as process:
            process.communicate()
        assert process.returncode == 0
        assert _fingerprint(layout.embeddings(LOCALE).folder) == before
        assert computed.stat().st_size - 4_020 <= GROUP_TEXTS + proofs.IN_FLIGHT


def test_two_processes_that_embed_at_once_write_the_same(run: Run, project: Path) -> None:
    write_clean(np.random.default_rng(2), 2_000, 20)
    run()
    expected = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    shutil.rmtree(layout.embeddings(LOCALE).folder)
    folders = [project / "left", project / "right"]
    for folder in folders:  # as in two branches that share the cache
        shutil.copytree(project / "data", folder / "data")
        shutil.copy(project / "params.yaml", folder)
    processes = [_watched(folder) for folder in folders]
    for folder, process in zip(folders, processes, strict=True):
        with process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert _fingerprint(folder / layout.embeddings(LOCALE).folder) == expected
    assert _encoded(run()) == [0, 0]


@pytest.mark.parametrize("trouble", ["a file", "full", "read-only", "file size"])
def test_a_store_that_cannot_be_written_is_one_message_and_the_old_vectors_stay(
    run: Run, project: Path, trouble: str
) -> None:
    run()
    before = _fingerprint(layout.embeddings(LOCALE).folder)
    _write_texts([f"{row} " + "otro texto" * row for row in range(250)])
    place = project / "cache/vectors"
    shutil.rmtree(place)
    if trouble == "a file":
        place.write_text("no folder")
        message = _refused(run())
    elif trouble == "file size":
        limit = (4_096, 4_096)
        message = _refused(run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    else:
        with small_disk(place, 1):
            if trouble == "read-only":
                remount = ["mount", "-o", "remount,ro", str(place)]
                subprocess.run(remount, check=True, capture_output=True)
            else:
                (place / "filling").write_bytes(b"." * (2**20 - 40_000))
            message = _refused(run())
    if trouble == "file size":
        assert "ulimit -f" in message
    else:
        assert f"the store of vectors in {place} cannot be used" in message
        assert "$PIPELINE_CACHE" in message
    assert _fingerprint(layout.embeddings(LOCALE).folder) == before


def test_clean_tables_of_another_version_are_refused(run: Run) -> None:
    counts = layout.clean(LOCALE).counts
    counts.write_text('{"products": {"in": 250, "out": 250}}')
    message = _refused(run())
    assert str(counts) in message
    assert "Run `dvc repro clean@es`" in message


def test_forgotten_prefixes_give_one_warning_and_it_goes_on(run: Run) -> None:
    changes = {"query_prefix": "", "passage_prefix": "", "runtime.engine": "torch"}
    done = run(model="prompted", changes=changes)
    assert done.returncode == 0
    assert done.stderr.count("warning: encoders.e5-small-q4: the model wants prompts") == 1
    assert "query_prefix: 'q: ', passage_prefix: 'd: '" in done.stderr


def test_an_encoder_that_does_not_speak_the_language_gives_a_warning_and_goes_on(run: Run) -> None:
    done = run(changes={"languages": ["en", "fr"]})
    assert done.returncode == 0
    assert "warning: encoder.es: e5-small-q4 does not speak es (it speaks: en, fr)" in done.stderr
    assert "warning" not in run().stderr


def test_a_cut_that_the_model_was_not_trained_for_is_warned_of_once(run: Run) -> None:
    for _ in range(2):  # while encoding, and with every vector held
        done = run(changes={"dimension": 8})
        assert done.returncode == 0
        assert done.stderr.count("nothing says that the model was trained to be cut") == 1


def test_rates_that_cannot_be_kept_fail_no_run(run: Run, project: Path) -> None:
    (project / "cache/rates").write_text("no folder")
    assert _encoded(run()) == [250, 20]


def test_a_model_that_gives_nan_is_refused_and_the_old_vectors_stay(run: Run) -> None:
    run()
    before = _fingerprint(Path("data"))
    done = run(model="broken", changes={"runtime.engine": "torch"})
    assert done.returncode == 1
    assert "NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert _fingerprint(Path("data")) == before


def test_a_kill_at_any_moment_leaves_the_old_vectors_or_the_new_ones(run: Run) -> None:
    run()
    before = _fingerprint(layout.embeddings(LOCALE).folder)
    command = [sys.executable, "-m", "pipeline.embed", "--locale", LOCALE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    partial = layout.embeddings(LOCALE).folder.parent
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(partial.glob(".*.partial/products-*.npy")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (-signal.SIGKILL, 0)
    assert _fingerprint(layout.embeddings(LOCALE).folder) == before
    assert run().returncode == 0
    assert _fingerprint(layout.embeddings(LOCALE).folder) == before


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("missing", ["all but 4 kB", "the last byte"])
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("embed", layout.embeddings(LOCALE).folder),
        ("index", layout.index(LOCALE).folder),
        ("retrieve", layout.runs("dense", LOCALE).folder),
        ("hybrid", layout.runs("hybrid", LOCALE).folder),
        ("evaluate", layout.per_query(LOCALE).parent),
    ],
)
def test_a_full_disk_is_one_message_and_the_old_artefacts_stay(
    results: Results, name: str, output: Path, missing: str
) -> None:
    run = results()
    before = {**_fingerprint(Path("data")), **_fingerprint(Path("models"))}
    metrics = _fingerprint(Path("reports"))
    limit = 4_096 if missing == "all but 4 kB" else _largest(output) - 1
    done = run(name, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert {**_fingerprint(Path("data")), **_fingerprint(Path("models"))} == before
    assert _fingerprint(Path("reports")) == metrics
