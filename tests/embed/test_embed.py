"""embed as a real process with a tiny model: rows, reuse, damage, a kill, a full store."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
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
from tests.helpers.artefacts import LOCALE, ROOT, shipped, write_clean
from tests.helpers.disks import small_disk
from tests.helpers.tiny_models import build_model

pytestmark = pytest.mark.slow  # stages as processes

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model, one whose weights are NaN, and one with prompts of its own."""
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
    """Return what runs embed in a folder with clean tables of 250 products.

    `changes` are to the encoder's entry, or, as dotted paths, to other sections.
    """
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    (project / "cache").mkdir()
    (project / "cache/engines").symlink_to(engines)
    write_clean(np.random.default_rng(0), 250, 20)

    def run(
        model: str = "sound",
        changes: "Mapping[str, Any] | None" = None,
        preexec_fn: Callable[[], None] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> "subprocess.CompletedProcess[str]":
        data = shipped()
        encoder = data["encoders"]["e5-small-q4"]
        encoder["weights"] = {"kind": "folder", "path": str(models / model)}
        encoder["max_tokens"] = 64
        data["embed"]["shard_rows"] = 100
        data["runtime"]["threads"] = 1
        for path, value in (changes or {}).items():
            section, _, key = path.rpartition(".")
            (data[section] if section else encoder)[key] = value
        text = yaml.safe_dump(data, sort_keys=False)
        (project / "params.yaml").write_text(text, encoding="utf-8")
        return run_stage("embed", "--locale", LOCALE, *arguments, preexec_fn=preexec_fn)

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a folder in which embed has run once is kept, once it has."""
    return tmp_path_factory.mktemp("made") / "project"


@pytest.fixture
def embedded(run: Run, made: Path, project: Path) -> Run:
    """Return what runs embed in a folder in which it has run once."""
    if made.exists():
        (project / "cache/engines").unlink()
        shutil.copytree(made, project, symlinks=True, dirs_exist_ok=True)
    else:
        assert _encoded(run()) == [250, 20]
        shutil.copytree(project, made, symlinks=True)
    return run


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


@pytest.mark.usefixtures("embedded")
def test_the_manifest_has_the_whole_contract_and_nothing_of_the_machine(models: Path) -> None:
    text = layout.embeddings(LOCALE).manifest.read_text()
    manifest = json.loads(text)
    assert manifest["contract"]["query_prefix"] == "query: "
    assert manifest["encoder"] == "e5-small-q4"
    assert manifest["dimension"] == 32
    assert manifest["engine"] == "openvino-cpu"
    assert os.uname().nodename not in text
    assert str(models) not in text


def test_nothing_is_encoded_twice_and_then_no_engine_is_loaded(embedded: Run) -> None:
    before = _fingerprint(Path("data"))
    shutil.rmtree(layout.embeddings(LOCALE).folder)
    for name in ("torch", "openvino", "tokenizers"):  # whoever imports them now fails
        Path(f"{name}.py").write_text("raise RuntimeError('imported')\n")
    # A process that starts anew: one that is forked has imported them already.
    assert _encoded(embedded(preexec_fn=lambda: None)) == [0, 0]
    assert _fingerprint(Path("data")) == before


def test_an_edited_product_and_a_larger_sample_encode_only_what_is_new(embedded: Run) -> None:
    texts = [f"texto {row}" for row in range(250)]
    texts[17] = "otra cosa"
    _write_texts(texts)
    assert _encoded(embedded()) == [1, 0]
    write_clean(np.random.default_rng(1), 400, 30)
    assert _encoded(embedded()) == [150, 10]
    larger = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    assert _encoded(embedded()) == [400, 30]
    assert _fingerprint(layout.embeddings(LOCALE).folder) == larger


def test_what_is_done_to_a_vector_afterwards_encodes_nothing_again(embedded: Run) -> None:
    changes = {
        "dimension": 8, "normalize": False, "similarity": "dot", "embed.dtype": "float16",
    }  # fmt: skip
    assert _encoded(embedded(changes=changes)) == [0, 0]
    reused = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    assert _encoded(embedded(changes=changes)) == [250, 20]
    assert _fingerprint(layout.embeddings(LOCALE).folder) == reused


def test_a_catalogue_without_queries_is_embedded_with_a_cut_dimension(run: Run) -> None:
    write_clean(np.random.default_rng(1), 30, 0)
    assert _encoded(run(changes={"dimension": 8})) == [30, 0]


def _damage(namespace: str) -> str:
    """Flip a bit of a value in the largest segment of vectors (x32) or token counts (x6)."""
    path = max(Path("cache/vectors").glob(f"*/*{namespace}.npy"), key=lambda it: it.stat().st_size)
    damaged = bytearray(path.read_bytes())
    damaged[-50] ^= 4
    path.write_bytes(damaged)
    return path.name


def test_a_damaged_entry_of_the_store_is_reported_and_computed_again(embedded: Run) -> None:
    before = _fingerprint(Path("data"))
    damaged = []
    for namespace, encoded in (("x6", 0), ("x32", 1)):
        damaged.append(_damage(namespace))
        done = embedded()
        # What the plan did not know of: a value is checked when it is read.
        assert _encoded(done) == [encoded, 0]
        assert damaged[-1] in done.stderr
        assert _fingerprint(Path("data")) == before
    after = embedded().stderr
    assert not [name for name in damaged if name in after]


def test_a_plan_says_what_a_run_then_does_and_writes_no_vectors(run: Run) -> None:
    done = run(arguments=("--plan",))
    assert done.returncode == 0, done.stderr
    assert not layout.embeddings(LOCALE).folder.exists()
    planned = [int(number) for number in re.findall(r" to_encode=(\d+) ", done.stderr)]
    assert planned == [250 - PROBE_TEXTS, 0]  # what it measured its rate with is kept
    assert _encoded(run()) == planned


def test_a_plan_where_a_rate_is_known_encodes_nothing_and_says_what_other_precisions_take(
    embedded: Run,
) -> None:
    _write_texts([f"otro {row}" for row in range(250)])
    done = embedded(arguments=("--plan",))
    assert done.returncode == 0, done.stderr
    assert re.findall(
        r" (\w+)=(\d+) distinct=(\d+) reused=(\d+) to_encode=(\d+) ", done.stderr
    ) == [
        ("products", "250", "250", "0", "250"),
        ("queries", "20", "20", "20", "0"),
    ]
    found = dict(re.findall(r" precision=(\w+) seconds=(.*)", done.stderr))
    assert found.pop("int8") == "unknown (never run here)"
    assert found.keys() == ({"bfloat16"} if bfloat16_instructions() else set())
    assert all(seconds.isdigit() for seconds in found.values())
    assert _encoded(embedded()) == [250, 0]


def test_what_max_tokens_cuts_off_is_counted_by_field_as_the_tokenizer_counts_it(
    run: Run, models: Path
) -> None:
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


def _watched(folder: Path, kill: proofs.Kill | None = None) -> int:
    """Run embed, which counts the texts it computes in the file `computed`; return its status."""
    given = f"proofs.Kill(*{astuple(kill)})" if kill else ""
    return subprocess.run(
        [sys.executable, "-c", f"from bench import proofs; proofs.watched_embed({given})"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


def test_a_kill_repeats_a_group_at_most_and_changes_no_byte(run: Run, project: Path) -> None:
    """`python -m bench.proofs kills` does it at 20 moments."""
    assert proofs.LOCALE == LOCALE
    write_clean(np.random.default_rng(2), 2_000, 20)
    assert _encoded(run()) == [2_000, 20]
    before = _fingerprint(layout.embeddings(LOCALE).folder)
    shutil.rmtree("cache/vectors")
    shutil.rmtree(layout.embeddings(LOCALE).folder)
    assert _watched(project, proofs.Kill(texts=1_500, seconds=0.0)) == -signal.SIGKILL
    assert not layout.embeddings(LOCALE).folder.exists()
    assert _watched(project) == 0
    assert _fingerprint(layout.embeddings(LOCALE).folder) == before
    repeated = (project / "computed").stat().st_size - 2_020
    assert repeated <= GROUP_TEXTS + proofs.IN_FLIGHT < 1_500


@pytest.fixture
def place(embedded: Run, project: Path) -> Path:
    """Where the store was, after a run whose vectors are there; its texts are others now."""
    _write_texts([f"{row} " + "otro texto" * row for row in range(250)])
    place = project / "cache/vectors"
    shutil.rmtree(place)
    return place


def _check_refused_and_the_old_vectors_stay(run: Run, place: Path) -> None:
    before = _fingerprint(layout.embeddings(LOCALE).folder)
    message = _refused(run())
    assert f"the store of vectors in {place} cannot be used" in message
    assert "$PIPELINE_CACHE" in message
    assert _fingerprint(layout.embeddings(LOCALE).folder) == before


def test_a_store_that_is_no_folder_is_one_message_and_the_old_vectors_stay(
    embedded: Run, place: Path
) -> None:
    place.write_text("no folder")
    _check_refused_and_the_old_vectors_stay(embedded, place)


def test_a_store_without_room_is_one_message_and_the_old_vectors_stay(
    embedded: Run, place: Path
) -> None:
    with small_disk(place, 1):
        (place / "filling").write_bytes(b"." * (2**20 - 40_000))
        _check_refused_and_the_old_vectors_stay(embedded, place)


def test_what_an_entry_may_have_forgotten_is_warned_of_once_and_it_goes_on(run: Run) -> None:
    changes = {
        "query_prefix": "", "passage_prefix": "", "runtime.engine": "torch",
        "languages": ["en", "fr"], "dimension": 8,
    }  # fmt: skip
    for _ in range(2):  # while encoding, and with every vector held
        done = run(model="prompted", changes=changes)
        assert done.returncode == 0
        for said in (
            "warning: encoders.e5-small-q4: the model wants prompts",
            "query_prefix: 'q: ', passage_prefix: 'd: '",
            "warning: encoder.es: e5-small-q4 does not speak es (it speaks: en, fr)",
            "nothing says that the model was trained to be cut",
        ):
            assert done.stderr.count(said) == 1
    assert "warning" not in run().stderr


def test_a_model_that_gives_nan_is_refused_and_the_old_vectors_stay(embedded: Run) -> None:
    before = _fingerprint(Path("data"))
    done = embedded(model="broken", changes={"runtime.engine": "torch"})
    assert done.returncode == 1
    assert "NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert _fingerprint(Path("data")) == before
