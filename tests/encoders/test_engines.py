import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from pipeline.core import cpu as cpus
from pipeline.core import layout
from pipeline.core.cpu import allowed_cores, bfloat16_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.encoders import engine as engines
from pipeline.encoders import openvino_model
from pipeline.encoders.distances import cosine_distance
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.engine import OnThreads, choose_engine
from pipeline.encoders.loading import load_encoder, resolve_engine
from pipeline.encoders.model import load_model
from pipeline.encoders.openvino_engine import OpenVinoEngine
from pipeline.encoders.openvino_model import converted_model
from pipeline.encoders.torch_engine import GPU_BATCH_TOKENS, TorchEngine
from pipeline.encoders.weights import resolve_weights
from tests.helpers.limits import file_limit
from tests.helpers.tiny_models import (
    build_model,
    by_hand,
    edit_json,
    encoder_of,
    entry,
    random_texts,
    runtime,
    weights_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

needs_bfloat16 = pytest.mark.skipif(
    not bfloat16_instructions(), reason="this CPU has no instructions for bfloat16"
)

REAL_CACHE = layout.cache().absolute()
ENGINES = ("torch", "openvino")
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
MODELS: dict[str, dict[str, Any]] = {
    **{pooling: {"pooling": pooling} for pooling in POOLINGS},
    "dense": {"pooling": "mean", "dense": 7, "tokenizer": "wordpiece"},
    "distilbert": {"pooling": "mean", "family": "distilbert", "tokenizer": "wordpiece"},
    "roberta": {"pooling": "lasttoken", "family": "roberta"},
}
ELSEWHERE = ("mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken")
"""Poolings that other models here have, or that test_encoder compares on torch."""

TEXTS = [
    "", "x", "🎁", " ", "red running shoes", "camiseta de algodón", "水筒 1リットル", "x" * 1_000,
    *("ab c" * 40)[:128:3], *random_texts(np.random.default_rng(1), 40, 140),
]  # fmt: skip


def raw_encoder(folder: Path, engine: str, **more: Any) -> TextEncoder:
    return encoder_of(folder, engine=engine, normalize=False, **more)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: np.ndarray = (left * right).sum(axis=1) / lengths
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model", normalize=False)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as wide as a real one: smaller matrices are always multiplied in one way."""
    return build_model(tmp_path_factory.mktemp("wide") / "model", hidden=384, layers=1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough) if name in ELSEWHERE else name
        for name in MODELS
    ],
)
def test_both_engines_equal_sentence_transformers_and_plain_transformers(
    tmp_path: Path, name: str
) -> None:
    folder = build_model(tmp_path / "model", normalize=False, **MODELS[name])
    expected = by_hand(folder, TEXTS, MODELS[name]["pooling"])
    if name == "dense":
        layer = load_file(folder / "2_Dense/model.safetensors")
        weight, bias = layer["linear.weight"].numpy(), layer["linear.bias"].numpy()
        expected = np.tanh(expected @ weight.T + bias)
    reference = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    for engine in ENGINES:
        spec, chosen = entry(folder), runtime(engine)
        assert str(resolve_engine(spec, weights_of(folder), chosen)) == f"{engine}-cpu"
        found = raw_encoder(folder, engine).encode_passages(TEXTS)
        np.testing.assert_allclose(found, reference, atol=1e-5, err_msg=engine)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=engine)


def test_a_replaced_pooling_is_replaced_on_openvino_too(folder: Path) -> None:
    found = raw_encoder(folder, "openvino", pooling="max").encode_passages(TEXTS)
    np.testing.assert_allclose(found, by_hand(folder, TEXTS, "max"), atol=1e-5)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("torch", "float32"),
        ("openvino", "float32"),
        ("openvino", "int8"),
        pytest.param("torch", "bfloat16", marks=needs_bfloat16),
        pytest.param("openvino", "bfloat16", marks=needs_bfloat16),
    ],
)
def test_a_texts_vector_is_the_same_to_the_last_bit_with_any_other_texts(
    wide: Path, engine: str, precision: str
) -> None:
    rng = np.random.default_rng(7)
    texts = [*TEXTS, *random_texts(rng, 20, 120)]
    # The maximum is no multiple of a batch's step.
    contract = {"precision": precision, "max_tokens": 100, "query_prefix": "q: "}
    one = raw_encoder(wide, engine, **contract)
    two = raw_encoder(wide, engine, threads=2, **contract)
    expected = one.encode_queries(texts)
    for _ in range(2):
        chosen = rng.choice(len(texts), size=rng.integers(1, len(texts)))  # some of them twice
        for encoder in (one, two):
            found = encoder.encode_queries([texts[at] for at in chosen])
            assert found.tobytes() == expected[chosen].tobytes()
    for at in rng.choice(len(texts), size=12):
        assert two.encode_queries([texts[at]]).tobytes() == expected[at].tobytes()
    again = raw_encoder(wide, engine, **contract)
    assert again.encode_queries(texts[::-1])[::-1].tobytes() == expected.tobytes()


@pytest.mark.thorough  # the rule above, with batches of another size
def test_batches_of_a_gpus_size_keep_a_texts_vector_the_same_to_the_last_bit(wide: Path) -> None:
    texts = [*TEXTS, *random_texts(np.random.default_rng(8), 40, 60)]
    spec, weights = entry(wide, normalize=False), weights_of(wide)
    model = load_model(spec, weights)
    engine = TorchEngine(model, "cpu", "float32", 1)
    engine.batch_tokens = GPU_BATCH_TOKENS
    encoder = TextEncoder(OnThreads(engine), model.tokenizer, model.pad_id, spec, weights)
    expected = encoder.encode_passages(texts)
    assert encoder.encode_passages(texts[5:9]).tobytes() == expected[5:9].tobytes()
    small = raw_encoder(wide, "torch").encode_passages(texts)
    np.testing.assert_allclose(expected, small, atol=1e-5)


def test_a_batch_that_the_memory_does_not_hold_is_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = raw_encoder(folder, "torch")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Embedding, "forward", full)
    with pytest.raises(
        PipelineError, match=r"memory of cpu is too small for 512 tokens .*max_tokens"
    ):
        encoder.encode_passages(["a b c"])


@pytest.mark.parametrize(
    ("device", "there", "expected"),
    [
        ("auto", {"cuda"}, "torch-cuda"),
        ("auto", {"mps"}, "torch-mps"),
        ("auto", set(), "openvino-cpu"),
        ("cuda", {"cuda"}, "torch-cuda"),
        ("cpu", {"cuda"}, "openvino-cpu"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_and_it_is_not_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, there: set[str], expected: str
) -> None:
    monkeypatch.setattr(engines, "_GPU_SIGNS", (Path("/dev/null"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    given = runtime("auto").model_copy(update={"device": device})
    assert str(choose_engine(entry(folder), given)) == expected


@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=needs_bfloat16), "float16"])
def test_half_precision_is_near_float32_and_really_less_precise(
    folder: Path, precision: str
) -> None:
    whole = raw_encoder(folder, "torch").encode_passages(TEXTS)
    half = raw_encoder(folder, "torch", precision=precision).encode_passages(TEXTS)
    assert half.dtype == np.float32
    assert cosines(half, whole).min() > 0.99
    digits = {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    assert (half == torch.from_numpy(half).to(digits).float().numpy()).all()
    assert (np.abs(half - whole).max(axis=1) > 1e-5).all()


def test_a_model_that_overflows_at_its_precision_is_refused_by_its_first_text(
    tmp_path: Path,
) -> None:
    folder = build_model(tmp_path / "model", normalize=False)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] *= 1e6  # float16 ends at 65,504
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for precision in ("float32", "bfloat16") if bfloat16_instructions() else ("float32",):
        encoder_of(folder, precision=precision).encode_passages(TEXTS)
    with pytest.raises(
        PipelineError,
        match=r"encoders\.tiny: the output for the text '' holds NaN or infinity.*precision",
    ):
        encoder_of(folder, precision="float16").encode_passages(TEXTS)


def test_int8_keeps_weights_in_8_bits_and_stays_near_float32(folder: Path) -> None:
    import openvino

    spec, weights = entry(folder, precision="int8"), weights_of(folder)
    assert str(resolve_engine(spec, weights, runtime("auto"))) == "openvino-cpu"
    whole = raw_encoder(folder, "openvino").encode_passages(TEXTS)
    rounded = raw_encoder(folder, "auto", precision="int8").encode_passages(TEXTS)
    assert cosines(rounded, whole).min() > 0.98
    assert (np.abs(rounded - whole).max(axis=1) > 1e-4).all()
    kinds, linear = [], []
    for precision in ("float32", "int8"):
        converted = converted_model(entry(folder, precision=precision), weights)
        graph = openvino.Core().read_model(converted.folder / "model.xml")
        constants = (node for node in graph.get_ops() if node.get_type_name() == "Constant")
        kinds.append({node.get_element_type().get_type_name() for node in constants})
        weighed = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
        linear.append([node.input_value(1).get_node().get_type_name() for node in weighed])
    assert "u8" not in kinds[0]
    assert "u8" in kinds[1]
    whole_layers = linear[0].count("Constant")
    assert linear[1].count("Constant") == round(whole_layers / 3)
    # Those that stay whole are the last ones.
    assert [kind for kind in linear[1] if kind in ("Constant", "Convert")] == (
        ["Convert"] * (whole_layers - round(whole_layers / 3))
        + ["Constant"] * round(whole_layers / 3)
    )


@pytest.mark.parametrize(
    ("engine", "precision", "expected"),
    [
        ("auto", "float32", "openvino-cpu"),
        ("auto", "int8", "openvino-cpu"),
        ("auto", "bfloat16", "openvino-cpu"),
        ("auto", "float16", "torch-cpu"),
        ("torch", "float32", "torch-cpu"),
        ("torch", "bfloat16", "torch-cpu"),
        ("openvino", "float32", "openvino-cpu"),
        ("openvino", "bfloat16", "openvino-cpu"),
        ("openvino", "int8", "openvino-cpu"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_engine_on_a_cpu_is_openvino_where_that_is_exact_or_asked_for(
    tmp_path: Path, device: str, engine: str, precision: str, expected: str
) -> None:
    if device == "auto" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("this machine has a GPU")
    choice = choose_engine(entry(tmp_path, precision=precision), runtime(engine, device))
    assert str(choice) == expected


def test_bfloat16_on_a_cpu_without_its_instructions_is_refused_before_anything_is_loaded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cpus, "cpu_flags", lambda: frozenset({"avx2", "avx512f", "avx512_vnni"}))
    for engine in ("auto", "torch", "openvino"):
        with pytest.raises(
            PipelineError,
            match=r"encoders\.tiny\.precision: bfloat16 needs .*amx_bf16.*\(found avx512_vnni\)",
        ):
            encoder_of(folder, engine=engine, precision="bfloat16")
    assert not (tmp_path / "cache").exists()


@needs_bfloat16
def test_bfloat16_runs_float32s_graph_and_is_nearer_to_it_than_int8(folder: Path) -> None:
    weights, vectors = weights_of(folder), {}
    for precision in ("float32", "bfloat16", "int8"):
        spec = entry(folder, precision=precision)
        assert str(resolve_engine(spec, weights, runtime("auto"))) == "openvino-cpu"
        vectors[precision] = raw_encoder(folder, "auto", precision=precision).encode_passages(TEXTS)
    whole, half, rounded = vectors.values()
    assert 1e-9 < cosine_distance(half, whole).max() < cosine_distance(rounded, whole).max()
    assert cosine_distance(half, whole).mean() <= openvino_model.NEAR
    exact, same = (
        converted_model(entry(folder, precision=of), weights) for of in ("float32", "bfloat16")
    )
    assert same == exact


@needs_bfloat16
def test_a_model_that_is_far_from_float32_in_bfloat16_is_refused_without_another_precision(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_model, "NEAR", 1e-9)
    spec, weights = entry(folder, precision="bfloat16"), weights_of(folder)
    assert str(resolve_engine(spec, weights, runtime("auto"), convert=False)) == "openvino-cpu"
    for convert in (True, False):
        with pytest.raises(
            PipelineError,
            match=r"encoders\.tiny: openvino cannot run this model: its vectors in bfloat16 differ "
            r"from float32's by \d.*Use precision float32",
        ):
            resolve_engine(spec, weights, runtime("auto"), convert=convert)
    assert str(resolve_engine(entry(folder), weights, runtime("auto"))) == "openvino-cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, engine: str, device: str) -> None:
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"this machine has {device}")
    with pytest.raises(PipelineError, match=rf"runtime\.device: {device}, but torch finds"):
        choose_engine(entry(tmp_path), runtime(engine, device))


def test_without_openvino_auto_is_torch_and_what_needs_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    assert str(choose_engine(entry(tmp_path), runtime("auto"))) == "torch-cpu"
    for engine, precision in (("openvino", "float32"), ("auto", "int8"), ("auto", "bfloat16")):
        with pytest.raises(
            PipelineError, match=r"openvino is not installed\. Run `pip install openvino`"
        ):
            choose_engine(entry(tmp_path, precision=precision), runtime(engine))


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_a_pooling_that_leaves_its_prompt_out_does_so_on_the_engine_that_auto_takes(
    tmp_path: Path, pooling: str
) -> None:
    folder = build_model(tmp_path / "model", pooling=pooling, normalize=False)
    edit_json(folder / "1_Pooling/config.json", include_prompt=False)
    prefixes = {"query_prefix": "search for this: ", "passage_prefix": ""}
    encoder = raw_encoder(folder, "auto", max_tokens=30, **prefixes)
    reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = 30
    for prompt, encode in zip(
        prefixes.values(), (encoder.encode_queries, encoder.encode_passages), strict=True
    ):
        expected = reference.encode(TEXTS, prompt=prompt)
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5)


def test_a_prompt_that_fills_all_tokens_leaves_out_all_but_the_closing_one(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", normalize=False)
    edit_json(folder / "1_Pooling/config.json", include_prompt=False)
    reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = 12
    encoder = raw_encoder(folder, "torch", max_tokens=12, query_prefix="p" * 50)
    expected = reference.encode(TEXTS, prompt="p" * 50)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)


def _leaves_its_prompt_out(folder: Path) -> None:
    edit_json(folder / "1_Pooling/config.json", include_prompt=False)


def _holds_nan(folder: Path) -> None:
    build_model(folder, seed=3, nan=True)


@pytest.mark.parametrize("spoil", [_leaves_its_prompt_out, _holds_nan])
def test_what_openvino_cannot_run_faithfully_runs_on_torch_with_a_warning_or_is_refused(
    tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_model(tmp_path / "model")
    spoil(folder)
    spec, weights = entry(folder), weights_of(folder)
    unknown = resolve_engine(spec, weights, runtime("auto"), convert=False)
    assert str(unknown) == "openvino-cpu"
    choice = resolve_engine(spec, weights, runtime("auto"))
    assert str(choice) == "torch-cpu"
    assert resolve_engine(spec, weights, runtime("auto"), convert=False) == choice
    assert "encoders.tiny runs on torch: for openvino its vectors differ" in caplog.text
    for engine, precision in (("openvino", "float32"), ("auto", "int8")):
        with pytest.raises(
            PipelineError, match=r"encoders\.tiny: openvino cannot run this model: .*\. Use precis"
        ):
            encoder_of(folder, engine=engine, precision=precision)


ENCODE = """
import sys
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.core.params import Encoder, Runtime

spec, runtime = Encoder.model_validate_json(sys.argv[1]), Runtime.model_validate_json(sys.argv[2])
encoder = load_encoder(spec, resolve_weights(spec, "tiny"), runtime)
sys.stdout.buffer.write(encoder.encode_passages(["red shoe", ""]).tobytes())
assert sys.modules["openvino_telemetry"] is None
assert ("nncf" in sys.modules) == (sys.argv[3] == "converts")
assert ("torch" in sys.modules) == (sys.argv[3] == "converts")
"""


def test_a_failure_of_the_machine_is_not_kept_as_one_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    folder = build_model(tmp_path / "model")
    spec, weights = entry(folder), weights_of(folder)
    for failure in (MemoryError("no room"), ImportError("no nncf"), OSError(28)):

        def fail(model: object, failure: Exception = failure) -> None:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(openvino_model, "_graph", fail)
            with pytest.raises(type(failure)):
                converted_model(spec, weights)
    assert converted_model(spec, weights).refused == ""


def test_a_disk_that_is_full_is_one_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("PIPELINE_CACHE", str(cache))
    folder = build_model(tmp_path / "model")
    spec, weights = entry(folder), weights_of(folder)
    said = "openvino cannot write the converted model there"
    with file_limit(100_000), pytest.raises(PipelineError, match=said):
        converted_model(spec, weights)
    assert not [path for path in cache.rglob("*") if "partial" in path.name]
    assert converted_model(spec, weights).refused == ""


def test_one_converted_model_serves_every_max_tokens_that_the_model_can_read(folder: Path) -> None:
    weights = weights_of(folder)
    one, other = (converted_model(entry(folder, max_tokens=of), weights) for of in (16, 48))
    assert one.folder == other.folder
    with pytest.raises(PipelineError, match=r"max_tokens: 100000 is more than the \d+ tokens"):
        converted_model(entry(folder, max_tokens=100_000), weights)
    with pytest.raises(PipelineError, match=r"max_tokens: 1 leaves no room"):
        converted_model(entry(folder, max_tokens=1), weights)


def test_converting_happens_once_and_nothing_is_sent_or_written_anywhere_else(
    tmp_path: Path,
) -> None:
    folder = build_model(tmp_path / "model")
    spec = entry(folder, precision="int8")
    (tmp_path / "home").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "HOME": str(tmp_path / "home"),
        "PIPELINE_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "home"),
    }
    outputs = []
    for how in ("converts", "reads"):
        arguments = [spec.model_dump_json(), runtime("auto").model_dump_json(), how]
        outputs.append(
            subprocess.run(
                [sys.executable, "-c", ENCODE, *arguments],
                env=environment,
                check=True,
                capture_output=True,
            ).stdout
        )
    assert len(outputs[0]) == 2 * 32 * np.float32().nbytes
    assert outputs[0] == outputs[1]
    assert list((tmp_path / "home").iterdir()) == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["engines"]


@pytest.mark.weights
@pytest.mark.thorough  # test_golden compares it too, and `wide` has the company
def test_the_default_english_model_is_the_same_on_every_engine_and_in_any_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(REAL_CACHE))
    spec = load_params().encoders["minilm"].model_copy(update={"normalize": False})
    weights = resolve_weights(spec, "minilm")
    texts = [
        "", "a", "shoe", "running shoes women size 8", "usb c to hdmi adapter 4k", "🎁 gift",
        "camiseta de algodón", "水筒 1リットル", "X" * 300, "word " * 400, "!awesome mug #1 dad",
        *(f"Stainless steel bottle, {n} oz, double wall, " * n for n in range(1, 12)),
    ]  # fmt: skip
    reference = SentenceTransformer(str(weights.folder), device="cpu")
    reference.max_seq_length = spec.max_tokens
    expected = reference.encode(texts)
    rng = np.random.default_rng(0)
    for engine in ENGINES:
        encoder = load_encoder(spec, weights, runtime(engine))
        found = encoder.encode_passages(texts)
        assert cosines(found, expected).min() >= 0.99999
        parallel = load_encoder(spec, weights, runtime(engine, threads=2))
        for _ in range(3):
            chosen = rng.choice(len(texts), size=rng.integers(1, len(texts)))
            some = parallel.encode_passages([texts[at] for at in chosen])
            assert some.tobytes() == found[chosen].tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="openvino pins threads on Linux alone")
def test_threads_are_pinned_to_cores_only_where_they_take_all_of_them(folder: Path) -> None:
    spec = entry(folder, normalize=False)
    converted = converted_model(spec, weights_of(folder))
    cores = allowed_cores()
    for threads, pinned in {1: cores == 1, cores: True, cores + 1: True}.items():
        engine = OpenVinoEngine(converted.folder, threads, "float32")
        assert engine.compiled.get_property("ENABLE_CPU_PINNING") is pinned
