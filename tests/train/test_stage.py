"""The stage on a tiny model: same bytes, what it writes, what it refuses."""

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import torch.utils.deterministic as memory
from ruamel.yaml import YAML
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file, write_json
from pipeline.core.params import Encoder
from pipeline.core.params_file import check_params, load_params
from pipeline.core.tables import PAIRS, read_table, write_table
from pipeline.core.trained_folder import refuse_other_model
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.model_folder import folder_sha256
from pipeline.encoders.weights import resolve_weights
from pipeline.train import stage
from pipeline.train.development import Development
from pipeline.train.learner import Learner
from pipeline.train.loop import deterministic, learning_rate
from pipeline.train.pairs import pairs_of
from pipeline.train.stage import train
from pipeline.train.teacher import Teacher
from tests.helpers.tiny_models import build_model, edit_json, runtime
from tests.helpers.tiny_rerankers import build_reranker, reranker
from tests.helpers.training import (
    NAME,
    RERANKER,
    SETTINGS,
    pair_table,
    write_model_card,
    write_project,
)
from tests.train.test_examples import encoder

pytestmark = pytest.mark.slow  # models are loaded

TEXTS = ["red shoe", "blue cotton shirt running", "lamp"]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes a project of its own, with a cache of its own, the working folder."""

    def made(name: str, settings: dict[str, Any] | None = None, **contract: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv(layout.CACHE_VARIABLE, str(folder / "cache"))
        write_project(folder, SETTINGS | (settings or {}), **contract)
        return folder

    return made


def run(kind: str = "encoder") -> layout.ModelFiles:
    train(load_params(), NAME)
    return layout.model(kind, NAME)


def add_second(folder: Path, **settings: Any) -> None:
    """Add the entry `second` to a project: settings of `NAME`, which is its base."""
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    data["trained"]["second"] = {**data["trained"][NAME], "base": NAME, **settings}
    YAML().dump(data, folder / "params.yaml")


def card_of(files: layout.ModelFiles) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(files.card.read_text(encoding="utf-8"))
    return card


def curve_of(files: layout.ModelFiles) -> list[dict[str, str]]:
    return list(csv.DictReader(files.curve.read_text(encoding="utf-8").splitlines()))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trained_entry(files: layout.ModelFiles) -> Encoder:
    entry = load_params().encoder_named(NAME)
    assert entry.weights.path == str(files.weights)  # type: ignore[union-attr]
    return entry


def test_two_trainings_in_two_folders_have_the_same_bytes(make: Make) -> None:
    make("one", {"epochs": 1}, query_prefix="red: ", passage_prefix="blue: ")
    first = contents(run().folder.absolute())
    make("two", {"epochs": 1}, query_prefix="red: ", passage_prefix="blue: ")
    second = contents(run().folder.absolute())
    # contract.json and the card's settings name no path but the model's own, which is relative.
    assert first == second
    make("three", {"epochs": 1, "seed": 4}, query_prefix="red: ", passage_prefix="blue: ")
    third = contents(run().folder.absolute())
    assert third["model/model.safetensors"] != first["model/model.safetensors"]


def test_the_folder_is_an_encoder_with_the_bases_contract_for_us_and_for_the_library(
    make: Make,
) -> None:
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (
            "plain",
            {"epochs": 1},
            {"pooling": "cls", "query_prefix": "red: ", "passage_prefix": "the "},
        ),
        ("raw", {"epochs": 1}, {"normalize": False}),
    ]
    for name, settings, contract in cases:
        folder = make(name, settings, **contract)
        if name == "plain":  # a transformers folder that names no pooling
            for left in ("modules.json", "sentence_bert_config.json"):
                (folder / "tiny" / left).unlink()
        files = run()
        spec = trained_entry(files)
        ours = load_encoder(spec, resolve_weights(spec, NAME), runtime())
        theirs = SentenceTransformer(str(files.weights), device="cpu")
        for role, prompt in (("queries", "query"), ("passages", "document")):
            vectors = getattr(ours, f"encode_{role}")(TEXTS)
            expected = theirs.encode(TEXTS, prompt_name=prompt)
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert theirs.max_seq_length == spec.max_tokens == 128
        assert card_of(files)["weights_sha256"] == folder_sha256(files.weights)
        base = load_file(folder / "tiny" / "model.safetensors")
        tuned = load_file(files.weights / "model.safetensors")
        assert {key: value.shape for key, value in tuned.items()} == {
            key: value.shape for key, value in base.items()
        }
        assert any(not torch.equal(tuned[key], base[key]) for key in base)


def test_layers_after_the_pooling_are_trained_and_kept(make: Make) -> None:
    folder = make("dense")
    shutil.rmtree(folder / "tiny")
    build_model(folder / "tiny", tokenizer="wordpiece", seed=1, dense=16, pickled=True)
    params = load_params()
    given = params.encoders["tiny"].weights.model_copy(update={"allow_pickle": True})
    spec = params.encoders["tiny"].model_copy(update={"weights": given})
    train(params.model_copy(update={"encoders": {**params.encoders, "tiny": spec}}), NAME)
    files = layout.model("encoder", NAME)
    assert not list(files.weights.rglob("*.bin"))
    trained = trained_entry(files)
    vectors = load_encoder(trained, resolve_weights(trained, NAME), runtime()).encode_queries(TEXTS)
    assert vectors.shape == (3, 16)
    library = SentenceTransformer(str(files.weights), device="cpu")
    np.testing.assert_allclose(vectors, library.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "cosine", "batch": 100},
        {"loss": "triplet"},
        {"matryoshka": [32, 8], "negatives": [], "hard_negatives": 0},
        # Of labelled pairs as cosine, by other formulas: tests/train/test_losses.py has them.
        pytest.param({"loss": "contrastive", "batch": 100}, marks=pytest.mark.thorough),
        pytest.param({"loss": "online-contrastive", "batch": 100}, marks=pytest.mark.thorough),
    ],
)
def test_each_loss_falls(make: Make, settings: dict[str, Any]) -> None:
    folder = make("loss", {"epochs": 6, "batch": 40, "lr": 2e-3} | settings)
    edit_json(folder / "tiny" / "config.json", hidden_dropout_prob=0.0)
    losses = [float(row["loss"]) for row in curve_of(run()) if row["loss"]]
    assert len(losses) == 6  # an epoch is one step
    assert losses[-1] < losses[0]


def test_the_curve_starts_with_the_base_and_the_best_epoch_is_kept(make: Make) -> None:
    make("curve", {"epochs": 3})
    files = run()
    card = card_of(files)
    rows = curve_of(files)
    assert list(rows[0]) == [
        "epoch",
        "step",
        "loss",
        "dev_catalogue_ndcg@10",
        "dev_pool_ndcg@10",
        "kept",
    ]
    assert (rows[0]["epoch"], rows[0]["loss"]) == ("0", "")
    ends = [row for row in rows if row["dev_catalogue_ndcg@10"]]
    assert [int(row["epoch"]) for row in ends] == [0, 1, 2, 3]
    assert [int(row["step"]) for row in ends] == [0, 5, 10, 15]
    values = [float(row["dev_catalogue_ndcg@10"]) for row in ends]
    assert card["epochs"][2]["dev_catalogue_ndcg@10"] == values[2]
    assert card["best_epoch"] == 1 + int(np.argmax(values[1:]))
    assert [row["epoch"] for row in rows if row["kept"] == "1"] == [str(card["best_epoch"])]
    assert card["better_than_base"] == (max(values[1:]) > values[0])
    assert card["counts"]["pairs_E"] == 40
    assert card["counts"]["dev_products"] == 30 + 100  # of dev and of train


def test_an_epoch_that_is_no_better_than_the_base_is_kept_with_a_warning(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    make("idle", {"lr": 1e-12, "epochs": 1})
    card = card_of(run())
    assert card["better_than_base"] is False
    assert card["best_epoch"] == 1
    assert "no epoch is better than the base: dev_catalogue_ndcg@10 is" in caplog.text


def test_a_training_that_was_done_is_not_done_again_where_only_the_contract_changed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("again")
    before = contents(run().folder)
    monkeypatch.setattr(Learner, "learn", None)
    edit = folder / "params.yaml"
    edit.write_text(
        edit.read_text().replace("    threads: 1\n", "    threads: 1\n    dimension: 8\n", 1)
    )
    assert load_params().encoder_named(NAME).dimension == 8
    after = contents(run().folder)
    assert {name for name in before if before[name] != after[name]} == {"contract.json"}


def test_a_training_that_was_done_is_done_again_after_any_code_that_decides_its_bytes_changed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(name: str) -> str:
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + "#" if path.exists() else "")
        return stage.hash_code(tmp_path / "packages")

    used = [f"{package}/some.py" for package in stage.CODE] + ["evaluate/within/other.py"]
    found = [edit(name) for name in used * 2]
    assert len({*found}) == len(found)
    assert {edit(name) for name in ("report/page.py", "train/note.txt")} == {found[-1]}

    caplog.set_level("INFO")
    make("code", {"epochs": 1})
    run()
    monkeypatch.setattr(stage, "hash_code", lambda packages: found[-1])
    run()
    assert caplog.text.count("steps=5 reused=0 trained=5") == 2


def set_share(share: float) -> None:
    """Set `tuned_share` in params.yaml."""
    path = Path("params.yaml")
    data = YAML(typ="safe", pure=True).load(path)
    data["trained"][NAME]["tuned_share"] = share
    YAML().dump(data, path)


def test_weights_are_the_shares_of_base_and_tuned_and_another_share_trains_no_step(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = make("share")
    files = run()
    assert f"train name={NAME} steps=10 reused=0 trained=10" in caplog.text
    plain, before = card_of(files), contents(files.folder)
    assert not {"written", "tuned_share"} & {*plain, *plain["settings"]}
    base, tuned = (load_arrays(at / "model.safetensors") for at in (folder / "tiny", files.weights))
    monkeypatch.setattr(Learner, "learn", None)
    for share in (0.25, 0.7):
        set_share(share)
        caplog.clear()
        card = card_of(run())
        assert f"train name={NAME} steps=10 reused=10 trained=0" in caplog.text
        assert card["settings"] == {**plain["settings"], "tuned_share": share}
        assert [card[key] == plain[key] for key in ("epochs", "best_epoch", "weights_sha256")] == [
            True, True, False,
        ]  # fmt: skip
        found = load_arrays(files.weights / "model.safetensors")
        assert found.keys() == base.keys()
        for name, weights in found.items():
            assert weights.dtype == base[name].dtype
            expected = (1 - share) * base[name].astype(float) + share * tuned[name].astype(float)
            np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-7, err_msg=name)
    set_share(1.0)
    assert contents(run().folder) == before


def test_what_the_card_says_of_written_weights_is_what_a_model_that_starts_there_has_first(
    make: Make,
) -> None:
    folder = make("written", {"tuned_share": 0.5, "epochs": 1})
    written = card_of(run())["written"]
    add_second(folder, tuned_share=1.0)
    shutil.copytree(layout.pairs(NAME).folder, layout.pairs("second").folder)
    train(load_params(), "second")
    first = card_of(layout.model("encoder", "second"))["epochs"][0]
    assert first == {"epoch": 0, **written}


def test_whether_a_model_is_better_than_the_base_is_said_of_what_is_written(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    measure = "dev_catalogue_ndcg@10"
    for better, lr in ((False, 1e-12), (True, 2e-3)):
        make(f"lr {lr}", {"lr": lr, "epochs": 1, "tuned_share": 0.9})
        caplog.clear()
        card = card_of(run())
        assert card["better_than_base"] is better
        written, base = card["written"][measure], card["epochs"][0][measure]
        assert card["better_than_base"] == (written > base)
        said = (
            f"the interpolated weights are no better than the base: {measure} is {written:.4f}, "
            f"and the base has {base:.4f}. Change tuned_share, lower lr, train fewer epochs"
        )
        assert (said in caplog.text) == (written <= base)
        assert "no epoch is better" not in caplog.text


def test_a_pooler_that_the_base_lacks_has_the_same_bytes_in_every_run(make: Make) -> None:
    folder = make("pooler", {"tuned_share": 0.7, "epochs": 1})
    path = folder / "tiny/model.safetensors"
    weights = load_file(path)
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})
    first = contents(run().folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert contents(run().folder) == first  # from the weights that are kept
        shutil.rmtree(layout.checkpoints())
        assert contents(run().folder) == first


def test_memory_that_torch_does_not_fill_changes_no_byte(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filling(threads: int) -> Any:
        @contextlib.contextmanager
        def made() -> Iterator[None]:
            with deterministic(threads):
                assert not memory.fill_uninitialized_memory
                memory.fill_uninitialized_memory = True
                yield

        return made()

    assert memory.fill_uninitialized_memory
    for kind, settings in (("encoder", SETTINGS), ("reranker", RERANKER)):
        found = []
        for name, context in (("without", deterministic), ("with", filling)):
            make(f"{kind}-{name}")
            write_project(Path(), {**settings, "epochs": 1})
            with monkeypatch.context() as patch:
                patch.setattr(stage, "deterministic", context)
                found.append(contents(run(kind).folder))
            assert memory.fill_uninitialized_memory
        assert found[0] == found[1]


def test_dev_queries_that_a_base_learned_from_do_not_choose_the_epoch(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("chain", {"epochs": 1})
    run()
    add_second(folder)
    own, theirs = layout.pairs("second"), layout.pairs(NAME)
    learned = read_table(theirs.train, PAIRS, "").slice(0, 5)  # a query
    upper = pc.utf8_upper(learned["query"])  # the text of a query, whatever its case
    learned = learned.set_column(2, PAIRS.field("query"), upper)
    write_table(own.train, pair_table(20, 8, first=200), PAIRS)
    write_table(own.dev, pa.concat_tables([learned, pair_table(3, 9, first=300)]), PAIRS)
    train(load_params(), "second")
    assert "1 of the dev queries are left out: tiny-tuned learned from them" in caplog.text
    counts = card_of(layout.model("encoder", "second"))["counts"]
    assert (counts["dev_queries"], counts["dev_queries_learned_before"]) == (3, 1)
    write_table(own.dev, learned, PAIRS)
    with pytest.raises(PipelineError, match="tiny-tuned learned from every dev query of sec"):
        train(load_params(), "second")
    write_table(theirs.train, pair_table(20, 6), PAIRS)
    with pytest.raises(PipelineError, match=r"tiny-tuned learned from other pairs than these"):
        train(load_params(), "second")
    assert "dev_queries_learned_before" not in card_of(layout.model("encoder", NAME))["counts"]


def test_a_training_that_was_done_is_done_again_if_other_dev_queries_choose_the_epoch(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = make("dev", {"epochs": 1})
    run()
    add_second(folder)
    own, theirs = layout.pairs("second"), layout.pairs(NAME)
    write_table(own.train, pair_table(20, 8, first=200), PAIRS)
    learned = read_table(theirs.train, PAIRS, "").slice(0, 5)  # a query
    write_table(own.dev, pa.concat_tables([learned, pair_table(3, 9, first=300)]), PAIRS)
    train(load_params(), "second")
    # As if the base had come to the same weights without that query.
    write_table(theirs.train, pair_table(20, 6, first=400), PAIRS)
    pairs = {"train": sha256_file(theirs.train)}
    write_json(
        layout.model("encoder", NAME).card,
        card_of(layout.model("encoder", NAME)) | {"pairs": pairs},
    )
    caplog.clear()
    train(load_params(), "second")
    assert "train name=second steps=5 reused=0 trained=5" in caplog.text
    assert card_of(layout.model("encoder", "second"))["counts"]["dev_queries"] == 4


def test_a_reranker_reads_as_many_tokens_as_the_model_can_and_types_where_it_takes_any(
    make: Make,
) -> None:
    make("long")
    write_project(Path(), RERANKER | {"epochs": 1, "max_tokens": 40}, max_tokens=32)
    assert card_of(run("reranker"))["settings"]["max_tokens"] == 40
    write_project(Path(), RERANKER | {"max_tokens": 999}, max_tokens=32)
    with pytest.raises(PipelineError, match=r"^trained\.tiny-tuned\.max_tokens: 999 is more than"):
        run("reranker")
    make("types")
    write_project(Path(), RERANKER | {"epochs": 1})
    build_model(Path("tiny"), family="distilbert", tokenizer="wordpiece", seed=1)
    edit_json(
        Path("tiny/tokenizer_config.json"),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    assert run("reranker").weights.is_dir()


def test_a_message_names_a_trained_model_by_its_key_under_trained(make: Make) -> None:
    make("named")
    build_model(layout.model("encoder", NAME).weights, tokenizer="wordpiece")
    params = load_params()
    spec = params.encoder_named(NAME)
    weights = resolve_weights(spec, NAME)
    assert weights.entry == params.entry_of(NAME) == f"trained.{NAME}"
    with pytest.raises(PipelineError, match=rf"^trained\.{NAME}: the text .* is not Unicode"):
        load_encoder(spec, weights, runtime()).encode_queries(["a", "\ud800"])
    tiny = params.encoder_named("tiny")
    assert resolve_weights(tiny, "tiny").entry == params.entry_of("tiny") == "encoders.tiny"


def test_a_model_that_was_trained_with_other_settings_is_not_used(make: Make) -> None:
    folder = make("used")
    files = layout.model("encoder", NAME)
    build_model(files.weights, tokenizer="wordpiece", seed=2)
    learned = {"train": sha256_file(layout.pairs(NAME).train)}
    write_model_card(load_params(), NAME, pairs=learned)
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    data["encoder"]["es"] = NAME
    data["encoders"]["tiny"]["weights"]["sha256"] = folder_sha256(Path("tiny"))
    data["trained"]["second"] = {**data["trained"][NAME], "base": NAME}
    shutil.copytree(layout.pairs(NAME).folder, layout.pairs("second").folder)
    for changes, said in (
        ({}, ""),
        ({"dimension": 8, "precision": "bfloat16"}, ""),  # these change no weights
        (
            {"lr": 0.5},
            r"card.json: lr must be 0\.5 .*Run `dvc repro models/dvc.yaml:train@tiny-tuned`",
        ),
        ({"scale": 5.0}, r"card.json: scale must be 5\.0 \(found None\)"),
        ({"tuned_share": 0.5}, r"card.json: tuned_share must be 0\.5 \(found None\)"),
    ):
        params = check_params(
            {**data, "trained": {**data["trained"], NAME: {**data["trained"][NAME], **changes}}}, ""
        )
        if not said:
            weights = LocaleEncoder(params, "es", convert=False).weights
            refuse_other_model(params, NAME, weights.sha256)
            continue
        LocaleEncoder(params, "es", convert=False)  # a plan of what is to be done
        with pytest.raises(PipelineError, match=said):
            LocaleEncoder(params, "es")
        with pytest.raises(PipelineError, match=said):
            train(params, "second")


def test_a_trained_model_is_used_only_with_the_weights_and_the_contract_of_its_training(
    make: Make,
) -> None:
    folder = make("held", {"epochs": 1})
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    data["encoder"]["es"] = NAME
    data["encoders"]["tiny"]["weights"]["sha256"] = folder_sha256(Path("tiny"))
    data["runtime"]["engine"] = "torch"
    files = run()

    def opened(**contract: Any) -> LocaleEncoder:
        tiny = {**data["encoders"]["tiny"], **contract}
        changed = {**data, "encoders": {**data["encoders"], "tiny": tiny}}
        return LocaleEncoder(check_params(changed, ""), "es")

    assert opened().weights.sha256 == card_of(files)["weights_sha256"]
    again = r"Run `dvc repro models/dvc.yaml:train@tiny-tuned`"
    for contract, said in (
        ({"query_prefix": "ask: "}, r"query_prefix must be 'ask: ' .found ''"),
        ({"pooling": "max"}, r"pooling must be 'max' .found 'model'"),
    ):
        with pytest.raises(PipelineError, match=rf"contract\.json: {said}.*its base\. {again}"):
            opened(**contract)
    other = build_model(folder / "other", tokenizer="wordpiece", seed=9)
    shutil.copyfile(other / "model.safetensors", files.weights / "model.safetensors")
    said = (
        rf"{NAME}/model: sha256 must be \w+ .found \w+.: it is not the model that card\.json is of"
    )
    with pytest.raises(PipelineError, match=rf"{said}\. {again}"):
        opened()


def test_a_model_is_not_used_after_its_base_or_its_teacher_was_trained_again(make: Make) -> None:
    folder = make("sources")
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    data["trained"]["judge"] = RERANKER
    student = {**data["trained"][NAME], "base": NAME, "loss": "distill-kl-div", "teacher": "judge"}
    data["trained"]["second"] = student
    params = check_params(data, "")
    for kind, name in (("encoder", NAME), ("encoder", "second"), ("reranker", "judge")):
        weights = layout.model(kind, name).weights
        build_model(weights, tokenizer="wordpiece", seed=len(name))
        write_model_card(params, name)
    base, teacher = "1" * 64, {"weights": "2" * 64}
    write_model_card(params, NAME, weights_sha256=base)
    write_model_card(params, "judge", weights_sha256=teacher["weights"])
    held = folder_sha256(layout.model("encoder", "second").weights)
    write_model_card(params, "second", base_sha256=base, teacher=teacher)
    refuse_other_model(params, "second", held)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"base_sha256": "3" * 64}, rf"base_sha256 must be 1{{12}} .found 3{{12}}.: {NAME} was"),
        ({"teacher": {"weights": "3" * 64}}, r"teacher\.weights must be 2{12} .*: judge was tra"),
    ]
    for changes, said in cases:
        card = {"base_sha256": base, "teacher": teacher, **changes}
        write_model_card(params, "second", **card)
        with pytest.raises(PipelineError, match=rf"second/card\.json: {said}.*train@second`"):
            refuse_other_model(params, "second", held)


def test_a_reranker_is_what_the_library_loads(make: Make) -> None:
    make("pairs", dict.fromkeys(SETTINGS))
    write_project(Path(), RERANKER | {"epochs": 2, "lr": 5e-3, "batch": 20})
    files = run("reranker")
    card = card_of(files)
    library = CrossEncoder(str(files.weights), device="cpu")
    assert library.config.id2label == {0: "E", 1: "S", 2: "C", 3: "I"}
    dev = pairs_of(read_table(layout.pairs(NAME).dev, PAIRS, ""))
    texts = [
        (dev.queries[query], dev.texts[text])
        for query, text in zip(dev.query, dev.text, strict=True)
    ]
    library.max_seq_length = 32
    logits = library.predict(texts, activation_fn=torch.nn.Identity())
    found = Development(dev, "dev", catalogue=False).of_logits(logits)
    assert found == {"dev_pool_ndcg@10": card["epochs"][card["best_epoch"]]["dev_pool_ndcg@10"]}
    losses = [float(row["loss"]) for row in curve_of(files) if row["loss"]]
    assert losses[-1] < losses[0]
    assert "dev_products" not in card["counts"]  # it ranks judged products alone


def test_mined_products_are_counted_and_found_once_and_so_are_the_tokens_read_for_them(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mined = {"mined": {"count": 3, "first": 2, "last": 9}, "epochs": 1}
    for kind, settings in (("encoder", SETTINGS), ("reranker", RERANKER)):
        make(kind, dict.fromkeys(SETTINGS))
        write_project(Path(), settings | mined)
        files = run(kind)
        first, card = contents(files.folder), card_of(files)
        assert card["counts"]["pairs_mined"] == 60  # 20 queries
        assert card["counts"]["pairs_I"] == 20
        assert card["counts"]["dev_products"] == 130
        chosen = "dev_catalogue_ndcg@10" if kind == "encoder" else "dev_mined_ndcg@10"
        assert card["chosen_by"] == chosen
        (kept,) = layout.checkpoints().glob(f"{NAME}-*/mined.safetensors")
        with monkeypatch.context() as patch:
            patch.setattr(stage, "mine", None)
            assert train(load_params(), NAME).units["tokens"] == 0
            assert contents(files.folder) == first
        kept.write_bytes(kept.read_bytes()[:-1] + b"?")
        assert train(load_params(), NAME).units["tokens"] > 0
        assert contents(files.folder) == first
        assert f"{kept.parent} is not as it was built; it is built again" in caplog.text


MINED = {"mined": {"count": 3, "first": 2, "last": 9}}


def test_what_was_mined_serves_every_training_that_would_mine_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = SETTINGS | MINED | {"epochs": 1, "batch": 40}
    make("mined", short)
    run()
    monkeypatch.setattr(stage, "mine", None)
    cases: list[dict[str, Any]] = [
        {"lr": 1e-3},
        {"batch": 20},
        {"loss": "triplet", "positives": ["E", "S"], "negatives": ["I"]},
        {"matryoshka": [8, 32]},
    ]
    for same in cases:
        write_project(Path(), short | same)
        run()
    others: list[dict[str, Any]] = [
        {"seed": 4},
        {"threads": 2},
        {"max_tokens": 16},
        {"mined": {"count": 2, "first": 2, "last": 9}},
    ]
    for other in others:
        write_project(Path(), short | other)
        with pytest.raises(TypeError, match="not callable"):
            run()
    write_project(Path(), short, query_prefix="red: ")
    with pytest.raises(TypeError, match="not callable"):
        run()
    write_project(Path(), RERANKER | MINED)
    with pytest.raises(TypeError, match="not callable"):
        run("reranker")


def test_what_cannot_be_trained_is_refused_before_anything_is_mined(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "mine", None)
    make("refused")
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (SETTINGS | {"matryoshka": [33]}, {}, r"matryoshka: 33 is more than the 32 components"),
        (SETTINGS | {"batch": 41}, {}, r"batch: 41 is more than the 40 examples"),
        (SETTINGS | {"loss": "cosine", "batch": 161}, {}, r"batch: 161 is more than the 160 exam"),
        (SETTINGS | {"positives": ["C"], "negatives": []}, {}, r"positives: no pair of the train"),
        (SETTINGS, {"normalize": False, "similarity": "dot"}, r"base: tiny has similarity dot"),
        (RERANKER, {"normalize": False, "similarity": "dot"}, r"base: tiny has similarity dot"),
        (RERANKER | {"max_tokens": 999}, {}, r"max_tokens: 999 is more than the 128"),
        (RERANKER | {"batch": 161}, {}, r"batch: 161 is more than the 160 pairs"),
    ]
    for settings, contract, message in cases:
        write_project(Path(), settings | MINED, **contract)
        if "C" in settings.get("positives", ()):
            path = layout.pairs(NAME).train
            table = read_table(path, PAIRS, "")
            write_table(path, table.filter(pc.not_equal(table["label"], "C")), PAIRS)
        with pytest.raises(PipelineError, match=rf"^trained\.tiny-tuned\.{message}"):
            train(load_params(), NAME)
    write_project(Path(), SETTINGS | MINED)
    with pytest.raises(TypeError, match="not callable"):
        train(load_params(), NAME)


TAUGHT = {"loss": "distill-kl-div", "teacher": "judge", "epochs": 1}


def add_judge(folder: Path, seed: int = 1) -> None:
    """Add the reranker judge to a project."""
    build_reranker(folder / "judge", labels=4, seed=seed)
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    spec = reranker(Path("judge"), labels=4, max_tokens=64)
    data["rerankers"]["judge"] = spec.model_dump(mode="json")
    YAML().dump(data, folder / "params.yaml")


def test_what_cannot_be_trained_is_refused_before_the_teacher_is_asked(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Teacher, "log_odds", None)
    make("refused")
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"max_tokens": 129}, {}, r"max_tokens: 129 is more than the 128 that its base tiny reads"),
        ({"matryoshka": [33]}, {}, r"matryoshka: 33 is more than the 32 components of tiny"),
        ({"batch": 64}, {}, r"batch: 64 is more than the 40 examples"),
        ({}, {"normalize": False, "similarity": "dot"}, r"base: tiny has similarity dot"),
    ]
    for settings, contract, message in cases:
        write_project(Path(), SETTINGS | TAUGHT | settings, **contract)
        add_judge(Path())
        with pytest.raises(PipelineError, match=rf"^trained\.tiny-tuned\.{message}"):
            run()
        assert not Path("models").exists()


def test_of_a_teacher_that_learned_from_all_dev_queries_the_teacher_is_named(make: Make) -> None:
    folder = make("teacher")
    data = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    data["trained"]["judge"] = RERANKER | {"epochs": 1}
    data["trained"][NAME] |= TAUGHT
    YAML().dump(data, folder / "params.yaml")
    own, theirs = layout.pairs(NAME), layout.pairs("judge")
    theirs.folder.mkdir()
    shutil.copyfile(own.dev, theirs.train)
    shutil.copyfile(own.train, theirs.dev)
    train(load_params(), "judge")
    said = r"^trained\.tiny-tuned\.teacher: judge learned from every dev query of tiny-tuned, so"
    with pytest.raises(PipelineError, match=said):
        run()


def test_a_student_learns_from_a_rerankers_scores_and_no_pair_is_scored_twice(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    mined = {"count": 2, "first": 1, "last": 9}

    def taught(name: str, seed: int) -> tuple[Path, dict[str, bytes]]:
        folder = make(name, TAUGHT | {"mined": mined})
        add_judge(folder, seed)
        return folder, contents(run().folder.absolute())

    folder, first = taught("one", 1)
    card = card_of(layout.model("encoder", NAME))
    assert card["card_schema"] == 2
    assert card["teacher"]["weights"] == folder_sha256(folder / "judge")
    assert card["teacher"]["engine"].startswith("openvino")  # another one gives other bits
    assert card["counts"]["pairs_taught"] == 140  # 20 queries of 5 judged products and 2 mined
    assert "teacher name=judge pairs=140 scored=140" in caplog.text
    assert contents(run().folder) == first
    shutil.rmtree(layout.checkpoints())
    again = train(load_params(), NAME)
    assert contents(layout.model("encoder", NAME).folder) == first
    shutil.rmtree(layout.checkpoints())
    shutil.rmtree(layout.store())
    assert train(load_params(), NAME).units["tokens"] > again.units["tokens"]
    assert again.kind == "tiny-judge"
    assert contents(layout.model("encoder", NAME).folder) == first
    assert caplog.text.count("teacher name=judge pairs=140 scored=0") == 2
    pairs = pairs_of(read_table(layout.pairs(NAME).train, PAIRS, ""))
    rows = np.arange(3, 100, 7)
    found = Teacher(load_params(), "judge").log_odds(pairs, rows, ("E",))
    library = CrossEncoder(str(folder / "judge"), device="cpu", max_length=64)
    texts = [(pairs.queries[pairs.query[row]], pairs.texts[pairs.text[row]]) for row in rows]
    chance = library.predict(texts, activation_fn=torch.nn.Softmax(dim=1))[:, 0].astype(np.float64)
    np.testing.assert_allclose(found, np.log(chance / (1 - chance)), atol=1e-4)
    assert taught("two", 2)[1]["model/model.safetensors"] != first["model/model.safetensors"]


def test_a_training_that_fails_says_at_which_step_and_writes_no_model(make: Make) -> None:
    make("nan", {"lr": 1e38, "warm_up": 0.0})
    files = layout.model("encoder", NAME)
    with pytest.raises(
        PipelineError,
        match=r"^trained\.tiny-tuned: the training fails at step \d+ of 10: .*Lower lr",
    ):
        run()
    assert not files.folder.exists()


def test_pairs_that_are_missing_or_other_are_one_message(make: Make) -> None:
    make("missing")
    layout.pairs(NAME).dev.unlink()
    with pytest.raises(PipelineError, match=r"dev\.parquet is missing. Run `dvc repro models/dvc"):
        run()


def test_the_learning_rate_rises_in_a_line_and_falls_in_one() -> None:
    settings = encoder(lr=1.0, warm_up=0.2)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert learning_rate(0, 10, encoder(lr=1.0, warm_up=0.0)) == 1.0
    assert learning_rate(9, 10, encoder(lr=1.0, warm_up=1.0)) == 1.0
