import difflib
import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from pydantic import ValidationError

from pipeline.core import params_text
from pipeline.core.errors import PipelineError
from pipeline.core.params import (
    ENCODER_MEASURES,
    LEAST_STEP,
    SECTIONS_OF_A_LOCALE,
    Params,
    RrfFusion,
)
from pipeline.core.params_file import KEPT_WHERE, check_params, load_params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.runs.ranking import SCORE_DECIMALS
from tests.helpers.artefacts import ROOT, shipped

SHIPPED = ROOT / "params.yaml"
Data = dict[str, Any]
Change = Callable[[Data], object]


def message(change: Change) -> str:
    """Return what is said about the shipped parameters after a change."""
    data = shipped()
    change(data)
    with pytest.raises(PipelineError) as caught:
        check_params(data, "params.yaml")
    return str(caught.value)


def lines(change: Change) -> list[str]:
    first, *rest = message(change).splitlines()
    assert first == "params.yaml:"
    return [line.strip() for line in rest]


def put(path: str, value: object) -> Change:
    *sections, key = path.split(".")

    def change(data: Data) -> None:
        for section in sections:
            data = data[section]
        data[key] = value

    return change


def mappings(data: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every mapping in the file."""
    if not isinstance(data, dict):
        return []
    return [path, *(one for key in data for one in mappings(data[key], (*path, key)))]


def leaves(data: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(data, dict):
        return [path]
    return [one for key in data for one in leaves(data[key], (*path, key))]


# The maps from a locale or a name, where any key may stand.
OPEN: set[tuple[str, ...]] = {
    (name,)
    for name in (
        "encoder", "index", "language", "spelling", "rerank", "systems", "encoders", "rerankers",
        "indexes", "trained",
    )
}  # fmt: skip
# Names of the source's own columns and labels, for ESCI's.
OPEN |= {("systems", locale) for locale in shipped()["systems"]}
OPEN |= {(section, key) for section in ("sample", "training") for key in ("columns", "labels")}
SECTIONS = [path for path in mappings(shipped()) if path not in OPEN]
LEAVES = leaves(shipped())
# What weights need in rare cases only, and is false or empty else; and what is off without it.
OPTIONAL = ("allow_pickle", "remote_code", "code_revision", "rescore")
# A locale taken from `encoder` is one too many in the other two maps.
NEEDED = [path for path in LEAVES if path[0] != "encoder" and path[-1] not in OPTIONAL]


def test_the_shipped_file_is_in_order() -> None:
    assert isinstance(load_params(SHIPPED), Params)


def test_every_shipped_key_is_needed() -> None:
    for path in NEEDED:

        def remove(data: Data, path: tuple[str, ...] = path) -> None:
            for section in path[:-1]:
                data = data[section]
            del data[path[-1]]

        assert any(line.startswith(".".join(path) + ": missing") for line in lines(remove)), path


@pytest.mark.parametrize("key", ["sample.source", "training.source", "systems.us"])
def test_an_input_that_dvc_ignores_is_refused(key: str) -> None:
    for path in ("data/systems/v.partial", "data/systems/x~/v", "data/systems/__pycache__/v"):
        told = lines(put(key, {"vespa": path} if key == "systems.us" else path))
        where = "systems.us.vespa" if key == "systems.us" else key
        assert told == [f"{where}: .dvcignore hides it from DVC (found {path!r}). Rename it."]
    data, path = shipped(), "data/systems/v~1.trec"
    put(key, {"vespa": path} if key == "systems.us" else path)(data)
    check_params(data, "params.yaml")


def test_an_unknown_key_is_refused_at_every_level() -> None:
    for path in SECTIONS:
        key = ".".join((*path, "zzzz"))
        assert lines(put(key, 1)) == [f"{key}: unknown key"]


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("runtme", "runtime"),
        ("sample.versoin", "version"),
        ("evaluate.ndgc", "ndcg"),
        ("encoders.labse.poling", "pooling"),
        ("encoders.labse.weights.revison", "revision"),
        ("encoders.e5-small-q4.weights.tokeniser", "tokenizer"),
        ("encoders.e5-small-q4.weights.model.sha265", "sha256"),
        ("indexes.hnsw.ef_serach", "ef_search"),
    ],
)
def test_an_unknown_key_names_the_nearest_key_of_its_section(typo: str, meant: str) -> None:
    assert lines(put(typo, 1)) == [f"{typo}: unknown key; did you mean {meant!r}?"]


def test_a_key_of_another_section_is_no_hint() -> None:
    assert lines(put("evaluate.depth", 1)) == ["evaluate.depth: unknown key"]


WRONG: list[tuple[str, object]] = [
    ("sample.seed", "13"),
    ("sample.seed", 1.0),
    ("sample.seed", True),
    ("sample.seed", -1),
    ("demo.seed", -1),
    ("demo.seed", 2**31),
    ("clusters.seed", 2**31),
    ("trained.minilm-demo.seed", 2**64 - 1),
    ("demo.seed", None),
    ("sample.version", "medium"),
    ("sample.source", ""),
    ("sample.splits", "test"),
    ("sample.splits", []),
    ("sample.queries", 0),
    ("sample.queries", "some"),
    ("sample.distractors", -1),
    ("clean.fields", ["product_titel"]),
    ("clean.separator", None),
    ("embed.dtype", "float64"),
    ("embed.shard_rows", 0),
    ("retrieve.depth", 1e3),
    ("bm25.k1", -0.1),
    ("bm25.k1", "1.2"),
    ("bm25.k1", 1e30),
    ("bm25.b", 1.1),
    ("hybrid.dense_weight", 1.5),
    ("hybrid.dense_weight", None),
    ("evaluate.mrr", 0),
    ("evaluate.ndcg", [10, 0]),
    ("uncertainty.samples", 99),
    ("uncertainty.samples", 10**7 + 1),
    ("uncertainty.samples", 1e3),
    ("uncertainty.confidence", 0.0),
    ("uncertainty.confidence", 1.0),
    ("uncertainty.confidence", 95),
    ("uncertainty.confidence", float("nan")),
    ("uncertainty.seed", -1),
    ("compare.metrics", []),
    ("compare.metrics", ["ndcg@10"]),
    ("compare.metrics", ["dense.ndcg@0"]),
    ("compare.metrics", "dense.ndcg@10"),
    ("compare.max_drop", -0.01),
    ("compare.max_drop", 1.0),
    ("compare.max_drop", "0"),
    ("compare.alpha", 0.0),
    ("compare.alpha", 1.0),
    ("compare.alpha", 5),
    ("report.queries", 0),
    ("report.results", 11),
    ("report.seed", -1),
    ("similar.neighbours", 9),
    ("duplicates.precision", 0.0),
    ("duplicates.text", 0.0),
    ("explore", "us"),
    ("explore", ["US"]),
    ("runtime.threads", -1),
    ("runtime.memory_limit", 0),
    ("runtime.memory_limit", -1.5),
    ("runtime.memory_limit", "8"),
    ("runtime.memory_limit", "auto"),
    ("runtime.memory_limit", True),
    ("runtime.memory_limit", float("inf")),
    ("runtime.device", "gpu"),
    ("runtime.engine", "onnx"),
    ("runtime.store_gigabytes", 0),
    ("encoder", {}),
    ("encoder.es", 0.001),
    ("index", None),
    ("index_gate", -0.01),
    ("index_gate", 1.01),
    ("index_gate", float("nan")),
    ("index_gate", float("inf")),
    ("index_gate", "0.05"),
    ("index_gate", True),
    ("index_gate", {"us": 0.05}),
    ("encoders.labse", "sentence-transformers/LaBSE"),
    ("encoders.labse.normalize", "true"),
    ("encoders.labse.dimension", 0),
    ("encoders.labse.dimension", "768"),
    ("encoders.labse.precision", "int4"),
    ("encoders.labse.weights.revision", "main"),
    ("encoders.labse.weights.model", "LaBSE"),
    ("encoders.minilm.weights.sha256", "b9a0"),
    ("encoders.minilm.languages", []),
    ("indexes.hnsw.m", 1),
    ("indexes.ivf-pq.bits", 13),
    ("indexes.pq-fastscan.subvectors", 258),
    ("indexes.ivf-pq-fastscan.subvectors", 384),
    ("compare.alpha", 1e-320),
]


def test_a_wrong_value_is_refused_with_its_key_and_itself() -> None:
    for path, value in WRONG:
        told = lines(put(path, value))

        assert len(told) == 1, path
        assert told[0].startswith(path)
        found = [0] if value == [10, 0] else value
        assert repr(found[0] if isinstance(found, list) and found else found) in told[0]


def test_a_number_where_a_text_belongs_is_refused_with_the_way_to_write_it() -> None:
    for path in ("encoder.es", "sample.source", "language.es", "runtime.ray_address"):
        for value in (6, 1e3, True):
            assert f"{path}: must be a text (found {value}). Put it in quotes." in lines(
                put(path, value)
            )


@pytest.mark.parametrize("value", [0, 0.0, 0.05, 1, None])
def test_the_gate_is_a_share_or_empty(value: float | None) -> None:
    data = shipped()
    data["index_gate"] = value
    assert check_params(data, "params.yaml").index_gate == value


def test_only_known_locales_are_explored_and_each_once() -> None:
    assert check_params(shipped() | {"explore": ["jp", "us"]}, "").explore == ("jp", "us")
    assert shipped()["explore"] == []
    assert lines(put("explore", ["us", "fr"])) == [
        "explore: encoder has no locale 'fr' (it has: us, es, jp)"
    ]
    assert lines(put("explore", ["us", "us"])) == ["explore: 'us' is repeated (found ['us', 'us'])"]


def test_messages_list_every_section_that_names_a_locale() -> None:
    data = shipped()
    locales = {*data["encoder"]}
    by_locale = [
        name for name, held in data.items() if isinstance(held, dict) and {*held} == locales
    ]
    listed = SECTIONS_OF_A_LOCALE.removesuffix(" and, if it is there, explore")
    assert listed.split(", ") == by_locale


def test_a_key_of_two_types_has_one_line_that_names_both() -> None:
    assert lines(put("sample.queries", "some")) == [
        "sample.queries: must be a valid integer or must be 'all' or 'none' (found 'some')"
    ]


def test_an_unknown_kind_names_the_known_ones_and_the_nearest() -> None:
    assert lines(put("indexes.hnsw", {"kind": "hsnw"})) == [
        "indexes.hnsw.kind: 'hsnw' is not one of flat, sq8, hnsw, ivf-flat, ivf-pq, rabitq, eden, "
        "pq-fastscan, ivf-pq-fastscan; did you mean 'hnsw'?"
    ]


@pytest.mark.parametrize(
    ("fusion", "told"),
    [
        ({"kind": "rff", "rank_constant": 60},
         "hybrid.kind: 'rff' is not one of weighted, rrf; did you mean 'rrf'?"),
        ({"kind": "rrf", "rank_constant": 60, "dense_weight": 0.5},
         "hybrid.dense_weight: unknown key"),
        ({"kind": "rrf"}, "hybrid.rank_constant: missing"),
        ({"dense_weight": 0.5}, "hybrid.kind: missing"),
    ],
)  # fmt: skip
def test_a_fusion_has_its_own_settings_and_no_others(fusion: Data, told: str) -> None:
    assert lines(put("hybrid", fusion)) == [told]


def test_a_k1_that_is_no_number_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        (told,) = lines(put("bm25.k1", value))
        assert told.startswith("bm25.k1: must be a finite number")


def test_the_way_from_one_fusion_to_the_other_that_params_yaml_tells_is_right(
    tmp_path: Path,
) -> None:
    (command,) = re.findall(r"dvc exp run (-S hybrid.kind=.*)", SHIPPED.read_text(encoding="utf-8"))
    path = tmp_path / "params.yaml"
    shutil.copy(SHIPPED, path)
    apply_overrides(path, [word for word in shlex.split(command) if word != "-S"])
    assert load_params(path).hybrid == RrfFusion(kind="rrf", rank_constant=60)


@pytest.mark.parametrize("name", ["a.b", "a_b", "A", "a b", "", "-a", "é"])
def test_a_name_that_would_read_as_a_path_is_refused(name: str) -> None:
    flat = shipped()["indexes"]["flat"]

    assert any(
        line.startswith(f"indexes.{name}: ") for line in lines(put_key("indexes", name, flat))
    )


def put_key(section: str, key: str, value: object) -> Change:
    return lambda data: data[section].__setitem__(key, value)


@pytest.mark.parametrize(
    ("section", "plural", "typo", "meant"),
    [("encoder", "encoders", "labsee", "labse"), ("index", "indexes", "hnws", "hnsw")],
)
def test_an_undefined_name_is_refused_with_the_defined_and_the_nearest(
    section: str, plural: str, typo: str, meant: str
) -> None:
    (told,) = lines(put(f"{section}.es", typo))

    names = {"encoders": ("encoders", "trained"), "indexes": ("indexes",)}[plural]
    defined = ", ".join(
        name
        for each in names
        for name, entry in shipped()[each].items()
        if each != "trained" or entry["kind"] == section
    )
    assert told == (
        f"{section}.es: {typo!r} is not defined under {' or '.join(names)} (defined: {defined}); "
        f"did you mean {meant!r}?"
    )


@pytest.mark.parametrize("code", ["jp", "jpn", "spa", "EN", "en-us", "", "english"])
def test_a_language_is_an_iso_639_1_code_or_any(code: str) -> None:
    told = f"must be an ISO 639-1 code or 'any' (found {code!r})"
    assert lines(put("language.jp", code)) == [f"language.jp: {told}"]
    assert lines(put("encoders.labse.languages", ["en", code])) == [
        f"encoders.labse.languages.1: {told}"
    ]


@pytest.mark.parametrize("code", ["any", "ja", "zh", "no", "yi"])
def test_a_language_is_accepted_by_its_code(code: str) -> None:
    data = shipped()
    data["language"]["jp"] = code
    assert check_params(data, "params.yaml").language["jp"] == code


@pytest.mark.parametrize("section", ["index", "language"])
def test_the_locale_maps_name_the_same_locales(section: str) -> None:
    assert lines(put(f"{section}.de", "flat" if section == "index" else "de")) == [
        f"{section}.de: encoder has no such locale (it has: us, es, jp)"
    ]
    assert lines(lambda data: data[section].pop("jp")) == [
        f"{section}.jp: missing, but encoder names the locale 'jp'"
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sample.splits", ["test", "train", "test"]),
        ("clean.fields", ["product_title", "product_title"]),
        ("evaluate.ndcg", [10, 100, 10]),
        ("evaluate.recall", [10, 10]),
        ("evaluate.judged", [5, 5]),
        ("compare.metrics", ["dense.ndcg@10", "bm25.ndcg@10", "dense.ndcg@10"]),
        ("encoders.labse.languages", ["en", "en"]),
    ],
)
def test_a_list_names_nothing_twice(path: str, value: list[object]) -> None:
    (told,) = lines(put(path, value))

    assert told.startswith(f"{path}: {value[-1]!r} is repeated")


@pytest.mark.parametrize(
    "measure",
    ["ndcg", "recall", "judged", "mrr", "precision", "map", "capped_recall", "ndcg_judged_only"],
)
def test_no_cutoff_exceeds_the_depth(measure: str) -> None:
    value = [1001] if isinstance(shipped()["evaluate"][measure], list) else 1001

    def deeper(data: Data) -> None:
        data["evaluate"][measure] = value
        data["compare"]["metrics"] = ["dense.pool_ndcg"]

    (told,) = lines(deeper)

    assert told.startswith(
        "retrieve.depth: 1000 is less than the deepest cutoff under evaluate, 1001"
    )


@pytest.mark.parametrize("name", ["ivf-flat", "ivf-pq", "ivf-pq-fastscan"])
def test_no_more_probes_than_lists(name: str) -> None:
    assert lines(put(f"indexes.{name}.probes", 17)) == [
        f"indexes.{name}.probes: 17 is more than the 16 lists. Set at most 16."
    ]
    data = shipped()
    data["indexes"][name]["probes"] = 16
    check_params(data, "params.yaml")


def test_a_hub_revision_may_be_empty_until_the_encoder_is_chosen() -> None:
    data = shipped()
    data["encoders"]["labse"]["weights"]["revision"] = None
    check_params(data, "params.yaml")

    data["encoder"]["es"] = "labse"
    with pytest.raises(
        PipelineError, match=r"encoders\.labse\.weights\.revision: must not be empty\. Pin"
    ):
        check_params(data, "params.yaml")


def test_remote_code_of_a_chosen_encoder_needs_a_pinned_revision() -> None:
    data = shipped()
    data["encoders"]["labse"]["weights"]["remote_code"] = True
    check_params(data, "params.yaml")

    data["encoder"]["es"] = "labse"
    with pytest.raises(
        PipelineError, match=r"encoders\.labse\.weights\.code_revision: must not be empty"
    ):
        check_params(data, "params.yaml")
    data["encoders"]["labse"]["weights"]["code_revision"] = "0" * 40
    check_params(data, "params.yaml")


def test_everything_wrong_is_told_at_once() -> None:
    def spoil(data: Data) -> None:
        data["sample"]["versoin"] = data["sample"].pop("version")
        data["demo"]["seed"] = "7"
        data["encoder"]["es"] = "labsee"
        data["index"]["jp"] = "hnws"
        data["index"]["de"] = "flat"
        data["evaluate"]["ndcg"] = [10, 10]
        del data["indexes"]["flat"]["kind"]

    told = {line.split(":")[0] for line in lines(spoil)}

    assert told == {
        "sample.version", "sample.versoin", "demo.seed", "encoder.es", "index.jp", "index.de",
        "evaluate.ndcg", "indexes.flat.kind",
    }  # fmt: skip


@pytest.mark.parametrize("data", [None, [], "text", 1, {}, {1: 2}, {"encoder": 3}])
def test_what_is_no_parameter_file_at_all_is_one_message(data: object) -> None:
    with pytest.raises(PipelineError, match=r"^params\.yaml:\n"):
        check_params(data, "params.yaml")


def test_loaded_parameters_do_not_change() -> None:
    params = load_params(SHIPPED)

    with pytest.raises(ValidationError):
        params.sample.seed = 1  # type: ignore[misc] # frozen is what is tested


ALIASES = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in itertools.pairwise("abcdefghi")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{after}: &{after} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, after in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encoder: {us: minilm\n", "is not YAML"),
        ("sample:\n  seed: 1\nsample:\n  seed: 2\n", "sample: is repeated (lines 1 and 3)"),
        ("sample:\n  seed: 1\n  seed: 2\n", "sample.seed: is repeated (lines 2 and 3)"),
        ("sample: !!python/object:os.system x\n", "sample: must be plain YAML (found the tag"),
        ("sample: !!set {a}\n", "sample: must be plain YAML (found the tag set)"),
        ("a: [!!binary aGk=]\n", "a.0: must be plain YAML (found the tag binary)"),
        ("a: 2024-01-01\n", "a: YAML reads '2024-01-01' as a date. Put it in quotes."),
        ("a: 2001-99-99\n", "a: YAML reads '2001-99-99' as a date. Put it in quotes."),
        ("a: 2001-01-01 99:99:99\n", "a: YAML reads '2001-01-01 99:99:99' as a date."),
        ("a: !!int abc\n", "a: must be a number (found 'abc')"),
        ("a: !!float abc\n", "a: must be a number (found 'abc')"),
        ("a: !!bool maybe\n", "a: must be true or false (found 'maybe')"),
        ("a: " + "9" * 5_000, "a: must be a number (found '999"),
        ("a: 1" + "0" * 400, "a: must be a number of at most 64 bits (found '1000"),
        ("a: 1e400\n", "a: must be a finite number (found '1e400')"),
        ("a: {b: [.nan]}\n", "a.b.0: must be a finite number (found '.nan')"),
        ('a: {b: "\\ud800"}\n', "a.b: holds half of a surrogate pair (found '\\ud800')"),
        ("a: &a [*a]\n", "the alias a is within itself"),
        ("a: &a {b: {c: *a}}\n", "the alias a is within itself"),
        (ALIASES, "its aliases make more than 20000 values"),
        (MERGES, "its aliases make more than 20000 values"),
        ("a: *b\n", "is not YAML"),
        ("a: " + "[" * 100_000, "must have at most 20 levels"),
        ("a: " + "[" * 3_000 + "]" * 3_000, "must have at most 20 levels"),
        ("a: " + "{a: " * 21 + "1" + "}" * 21, "must have at most 20 levels"),
        ("".join(" " * n + "a:\n" for n in range(400)), "must have at most 20 levels"),
        ("a: 1\n" * 30_000, "must have at most 131072 bytes"),
        ("\ta: 1\n", "is not YAML"),
        ("a: \x00\n", "is not YAML"),
        (b"a: \xff\xfe\n", "is not YAML: it must be UTF-8"),
        ("a: 1\n".encode("utf-16"), "is not YAML: it must be UTF-8"),
        ("a: 1\n---\na: 2\n", "is not YAML"),
        ('a: "\\UFFFFFFFF"\n', "is not YAML"),
        ('a: "\\U00110000"\n', "is not YAML"),
        ("%YAML 1.3\na: 1\n", "is not YAML"),
        ('"a\\n::set-env name=X::y": 2001-01-01\n', "a date"),
        ('".::warning::x": 2001-01-01\n', "a date"),
        ('" ::warning::x": 2001-01-01\n', "a date"),
        ("".join(f"a{n}: 2001-01-01\n" for n in range(2_001)), "… and 1981 more"),
        ("", "must be an object"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_one_message(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(PipelineError, match=re.escape(told)) as caught:
        load_params(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1500
    assert not re.search(r"^\s*::", str(caught.value), re.MULTILINE)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("6", "a number"), ("1e3", "a number"), ("007", "a number"), ("0x1f", "a number"),
        ("-.5", "a number"), (".inf", "a number"), ("true", "true or false"),
        ("null", "empty"), ("~", "empty"), ("2026-01-01", "a date"), ("=", "a default"),
    ],
)  # fmt: skip
def test_a_key_that_yaml_reads_as_no_text_is_refused_by_name(key: str, kind: str) -> None:
    with pytest.raises(PipelineError) as caught:
        params_text.parse(f"encoder:\n  us: minilm\n  {key}: minilm\n".encode(), "params.yaml")
    assert str(caught.value) == (
        f"params.yaml:\n  encoder.{key}: YAML reads this key as {kind} (line 3). Put it in quotes."
    )


def test_a_key_in_quotes_is_a_text_and_so_is_no() -> None:
    keys = ("6", "1e3", "007", "true", "null", "~", "2026-01-01")
    text = "".join(f"'{key}': 1\n" for key in keys) + "no: 1\nyes: 1\n"
    assert list(params_text.parse(text.encode(), "")) == [*keys, "no", "yes"]


def test_aliases_and_merged_keys_that_end_are_read_and_so_is_a_mark_of_byte_order() -> None:
    text = "\ufeffa: &a {b: 1, c: [1, 2]}\nd: {<<: *a, b: 2}\ne: *a\n"
    assert params_text.parse(text.encode(), "") == {
        "a": {"b": 1, "c": [1, 2]}, "d": {"b": 2, "c": [1, 2]}, "e": {"b": 1, "c": [1, 2]},
    }  # fmt: skip


def test_the_shipped_file_is_read_as_the_yaml_library_reads_it() -> None:
    assert params_text.read_data(SHIPPED) == shipped()


def test_numbers_of_64_bits_never_crash_a_rule() -> None:
    largest = 2**63 - 1
    for path in (
        "retrieve.depth", "uncertainty.samples", "evaluate.mrr", "demo.seed", "embed.shard_rows",
        "indexes.ivf-pq.probes", "sample.queries",
    ):  # fmt: skip
        with suppress(PipelineError):
            check_params(changed(put(path, largest)), "params.yaml")
    rrf = {"kind": "rrf", "rank_constant": largest}
    assert lines(put("hybrid", rrf))[0].startswith("hybrid.rank_constant: with")


def changed(change: Change) -> Data:
    data: Data = shipped()
    change(data)
    return data


def test_a_damaged_file_gives_parameters_or_one_message(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rng, whole = np.random.default_rng(0), SHIPPED.read_bytes()
    parts = [
        b"*a",
        b"&a ",
        b"[" * 30,
        b": ",
        b"- ",
        b"1e999",
        b"2026-01-01",
        b"\x00",
        b"\xff",
        b"!!x ",
    ]
    for _ in range(25):
        first = int(rng.integers(len(whole)))
        damage = parts[rng.integers(len(parts))]
        path.write_bytes(whole[:first] + damage + whole[first + int(rng.integers(30)) :])
        try:
            assert isinstance(load_params(path), Params)
        except PipelineError as err:
            assert str(path) in str(err)  # noqa: PT017 (either outcome is right)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"is missing\. Run from the root of the project\."):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("value", "read"), [("yes", "yes"), ("off", "off"), ("no", "no"), ("0o17", 15), ("1e-3", 0.001)]
)
def test_values_are_read_as_yaml_1_2_as_dvc_writes_it(
    tmp_path: Path, value: str, read: object
) -> None:
    path = tmp_path / "params.yaml"
    text = SHIPPED.read_text(encoding="utf-8")
    path.write_text(text.replace("separator: ' '", f"separator: {value}"), encoding="utf-8")

    if isinstance(read, str):
        assert load_params(path).clean.separator == read
    else:
        with pytest.raises(PipelineError, match=rf"clean\.separator: .*\(found {read}\)"):
            load_params(path)


def scalars() -> list[tuple[str, str]]:
    """Return every scalar key except of encoders not chosen, and a new value of its kind."""
    data = shipped()
    unchosen = set(data["encoders"]) - set(data["encoder"].values())
    found: list[tuple[str, str]] = []
    for path in LEAVES:
        if unchosen & set(path):
            continue
        value: Any = data
        for key in path:
            value = value[key]
        if isinstance(value, list):
            continue
        match value:
            case bool():
                new = json.dumps(not value)
            case int():
                new = str(value + 1)
            case _:
                new = f"other{len(found)}"
        found.append((".".join(path), new))
    return found


def test_setting_parameters_by_dvc_changes_their_lines_alone(tmp_path: Path) -> None:
    """The very edit of `dvc exp run -S key=value`; it is why the file has its form."""
    wanted = scalars()
    edited(tmp_path, *(f"{key}={value}" for key, value in wanted))

    before, after = (
        path.read_text(encoding="utf-8").splitlines() for path in (SHIPPED, tmp_path / SHIPPED.name)
    )
    changes = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [old.strip().partition(":")[0] for old, _ in changes] == [
        key.rpartition(".")[2] for key, _ in wanted
    ]
    assert [new.strip() for _, new in changes] == [
        f"{key.rpartition('.')[2]}: {value}" for key, value in wanted
    ]


@pytest.mark.parametrize(
    ("key", "value", "removed", "added"),
    [
        ("sample.splits", "[test,train]", [], ["  - train"]),
        ("sample.splits", "[train]", ["  - test"], ["  - train"]),
        ("evaluate.ndcg", "[10,100,1000]", [], ["  - 1000"]),
        ("explore", "[us,es]", ["explore: []"], ["explore:", "- us", "- es"]),
        ("clean.fields", "[product_title]", ["  - product_brand", "  - product_color",
         "  - product_bullet_point", "  - product_description"], []),
    ],
)  # fmt: skip
def test_setting_a_list_by_dvc_changes_its_own_lines_alone(
    tmp_path: Path, key: str, value: str, removed: list[str], added: list[str]
) -> None:
    assert edited(tmp_path, f"{key}={value}") == (removed, added)


def edited(folder: Path, *overrides: str) -> tuple[list[str], list[str]]:
    """Return the lines that overrides take from params.yaml and put into it."""
    path = folder / "params.yaml"
    shutil.copy(SHIPPED, path)
    apply_overrides(path, list(overrides))
    before, after = (one.read_text(encoding="utf-8").splitlines() for one in (SHIPPED, path))
    _, _, *changes = difflib.unified_diff(before, after, n=0, lineterm="")
    return (
        [line[1:] for line in changes if line.startswith("-")],
        [line[1:] for line in changes if line.startswith("+")],
    )


def test_a_graph_search_that_cannot_reach_the_depth_is_refused_where_it_is_chosen() -> None:
    def chosen(data: dict[str, Any]) -> None:
        data["index"]["us"] = "hnsw"
        data["indexes"]["hnsw"]["ef_search"] = 999

    (told,) = lines(chosen)
    assert told.startswith("indexes.hnsw.ef_search: 999 is less than retrieve.depth 1000")


def test_a_code_revision_that_would_not_be_obeyed_is_refused() -> None:
    def chosen(data: dict[str, Any]) -> None:
        data["encoder"]["us"] = "labse"
        data["encoders"]["labse"]["weights"]["code_revision"] = "0" * 40

    (told,) = lines(chosen)
    assert "without remote_code: true has no effect" in told


@pytest.mark.parametrize(
    ("precision", "runtime", "told"),
    [
        ("int8", {"engine": "torch"}, "int8 needs the engine openvino"),
        ("int8", {"device": "cuda"}, "int8 is for CPUs"),
        ("int8", {"device": "mps"}, "int8 is for CPUs"),
        ("float16", {"engine": "openvino"}, "float16 needs the engine torch"),
    ],
)
def test_a_precision_that_engine_or_device_cannot_give_is_refused_where_it_is_chosen(
    precision: str, runtime: dict[str, str], told: str
) -> None:
    def unchosen(data: Data) -> None:
        data["runtime"] |= runtime
        data["encoders"]["labse"]["precision"] = precision

    def chosen(data: Data) -> None:
        unchosen(data)
        data["encoders"]["minilm"]["precision"] = precision

    (line,) = lines(chosen)
    assert line.startswith(f"encoders.minilm.precision: {told}")
    assert f"Set runtime.{next(iter(runtime))} to auto or " in line
    data = shipped()
    unchosen(data)
    check_params(data, "params.yaml")


@pytest.mark.parametrize("precision", ["float32", "int8", "bfloat16", "float16"])
def test_every_precision_can_be_had_with_an_automatic_runtime(precision: str) -> None:
    data = shipped()
    data["encoders"]["minilm"]["precision"] = precision
    for device in ("auto", "cpu"):
        data["runtime"]["device"] = device
        check_params(data, "params.yaml")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_openvino_on_a_gpu_is_refused(device: str) -> None:
    def chosen(data: Data) -> None:
        data["runtime"] |= {"engine": "openvino", "device": device}

    (told,) = lines(chosen)
    assert told.startswith(f"runtime.device: {device}, but runtime.engine openvino computes on the")


def test_zero_threads_are_all_that_the_process_may_use() -> None:
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shipped_runtime = load_params(SHIPPED).runtime
    for threads, expected in ((0, every), (1, 1), (3, 3)):
        found = shipped_runtime.model_copy(update={"threads": threads}).thread_count()
        assert found == expected


def test_the_environment_says_how_many_cores_there_are_where_params_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = load_params(SHIPPED).runtime
    monkeypatch.setenv("PIPELINE_THREADS", "3")
    assert runtime.thread_count() == 3
    assert runtime.model_copy(update={"threads": 5}).thread_count() == 5
    for wrong in ("0", "-1", "two", "1.5", "9999999", "²", "9" * 40, " 3", "٣"):
        monkeypatch.setenv("PIPELINE_THREADS", wrong)
        with pytest.raises(
            PipelineError, match=rf"\$PIPELINE_THREADS: .* \(found '{wrong}'\)\. Correct"
        ):
            runtime.thread_count()


@pytest.mark.parametrize(
    "address",
    ["auto", "head:6379", "192.0.2.7:6379", "ray://head.lan:10001", "head:1", "ray://head:65535"],
)
def test_addresses_of_a_ray_cluster_are_taken(address: str) -> None:
    data = shipped()
    data["runtime"] |= {"executor": "ray", "ray_address": address}
    assert check_params(data, "").runtime.ray_address == address


@pytest.mark.parametrize("address", ["", "head", "ray://head", "http://head:1", "a b:1"])
def test_what_is_no_address_of_a_ray_cluster_is_refused(address: str) -> None:
    (told,) = lines(put("runtime.ray_address", address))
    assert told.startswith("runtime.ray_address: must be auto, HOST:PORT or ray://HOST:PORT with")


@pytest.mark.parametrize("port", ["0", "65536", "99999", "9" * 4_301, "06379", "6379\n", "-1", ""])
def test_a_port_that_no_machine_has_is_refused(port: str) -> None:
    for scheme in ("", "ray://"):
        (told,) = lines(put("runtime.ray_address", f"{scheme}head:{port}"))
        assert " with a port from 1 to 65535 (found " in told


def test_settings_of_a_ray_cluster_that_would_not_be_obeyed_are_refused() -> None:
    (told,) = lines(put("runtime.ray_address", "auto"))
    assert told.startswith("runtime.ray_address: 'auto' without runtime.executor ray")

    def on_mps(data: Data) -> None:
        data["runtime"] |= {"executor": "ray", "device": "mps"}

    (told,) = lines(on_mps)
    assert told.startswith("runtime.device: mps, which Ray does not support")


def test_a_language_without_spaces_is_not_corrected() -> None:
    (told,) = lines(put("spelling.jp", "corrected"))
    assert told.startswith("spelling.jp: must be typed (found corrected): the language ja")
    assert told.endswith("Set it to typed.")
    (told,) = lines(put("spelling.es", True))
    assert told.startswith("spelling.es: must be")


def test_without_the_section_of_spelling_its_line_is_named() -> None:
    found = lines(lambda data: data.pop("spelling"))
    assert found[0] == "spelling: missing"
    assert found[1].startswith("spelling: add `spelling: {us: typed, es: typed, jp: typed}`")


def test_without_the_section_of_other_engines_its_line_is_named() -> None:
    found = lines(lambda data: data.pop("systems"))
    assert found[0] == "systems: missing"
    assert found[1].startswith("systems: add `systems: {us: {}, es: {}, jp: {}}`")


def test_no_locale_may_have_the_name_of_the_summarys_mean() -> None:
    def named(data: dict[str, Any]) -> None:
        for section in ("encoder", "index", "language", "spelling", "rerank", "systems"):
            data[section]["mean"] = data[section].pop("jp")

    (told,) = lines(named)
    assert told.startswith("encoder.mean: must not be the name of a locale")


def test_too_few_draws_for_any_drop_to_be_refused_are_refused() -> None:
    # Three locales x three metrics: the least adjusted p of 179 draws is 9 / 180 = 0.05.
    (told,) = lines(put("uncertainty.samples", 179))
    assert told == (
        "uncertainty.samples: 179 draws are too few: no p that is adjusted by Holm can be below "
        "0.05 (tests together: 9). Draw at least 180. There is a test for each locale and metric."
    )
    data = shipped()
    data["uncertainty"]["samples"] = 180
    check_params(data, "params.yaml")


def test_the_fewest_draws_named_are_enough_and_one_less_is_not() -> None:
    draws = check_params(shipped(), "").uncertainty
    for tests in (0, 1, 3, 7, 9, 104, 1_305):
        for alpha in (0.05, 0.01, 0.03, 0.1, 0.7, 1e-4):
            found = draws.model_copy(update={"samples": 0}).too_few_for(tests, alpha)
            if not tests:
                assert not found
                continue
            needed = int(found.rpartition(" ")[2].rstrip(".").replace(",", ""))
            assert tests / (needed + 1) < alpha <= tests / needed * (1 + 1e-12)
            assert not draws.model_copy(update={"samples": needed}).too_few_for(tests, alpha)


@pytest.mark.parametrize(
    ("metric", "near", "way"),
    [
        ("dense.ndgc@10", "dense.ndcg@10", ""),
        ("dence.ndcg@10", "dense.ndcg@10", "put 10 first under evaluate.ndcg"),
        ("dense.ndcg@100", "dense.ndcg@10", "put 100 first under evaluate.ndcg"),
        ("bm25.recall@50", "bm25.recall@10", "list 50 under evaluate.ndcg and under evaluate.re"),
        ("hybrid.judged@5", "hybrid.judged@10", "put 5 first under evaluate.judged"),
        ("hybrid.mrr@5", "hybrid.mrr@10", "set evaluate.mrr to 5"),
        ("dense.ndcg_judged_only@5", "dense.ndcg_judged_only@10", "set evaluate.ndcg_judged_only"),
        ("random.pool_ndcg", None, ""),
    ],
)
def test_a_metric_that_is_not_kept_is_refused_with_the_nearest_and_what_would_keep_it(
    metric: str, near: str | None, way: str
) -> None:
    (told,) = lines(put("compare.metrics", ["dense.pool_ndcg", metric]))
    assert told.startswith(f"compare.metrics: {metric!r} is not kept query by query")
    assert near is None or f"; did you mean {near!r}? " in told
    assert "(kept of dense, bm25, hybrid: ndcg@10, mrr@10, recall@10, recall@100, " in told
    assert " Name one of these" in told
    assert f", or {way}" in told if way else told.endswith(" Name one of these.")


def test_what_is_kept_of_every_system_may_be_compared() -> None:
    data = shipped()
    kept = check_params(data, "params.yaml").evaluate.per_query()
    data["compare"]["metrics"] = [f"{system}.{each}" for system in FIRST_SYSTEMS for each in kept]
    check_params(data, "params.yaml")
    assert {each.partition("@")[0] for each in kept} == {*KEPT_WHERE, "pool_ndcg"}


def test_an_encoders_own_measures_may_be_compared_and_a_typo_is_refused_with_the_nearest() -> None:
    data = shipped()
    data["compare"]["metrics"] = [f"encoder.{name}" for name in ENCODER_MEASURES]
    check_params(data, "params.yaml")
    (told,) = lines(put("compare.metrics", ["encoder.mapp"]))
    assert "; did you mean 'encoder.map'? " in told


def test_both_ways_out_of_a_cutoff_that_takes_a_compared_metric_away_are_right() -> None:
    (told,) = lines(put("evaluate.ndcg", [10]))
    assert told.startswith(
        "compare.metrics: 'dense.recall@100' is not kept query by query (kept of "
    )
    assert told.endswith(
        " Name one of these, or list 100 under evaluate.ndcg and under evaluate.recall."
    )
    data = shipped()
    data["evaluate"]["ndcg"] = [10]
    data["compare"]["metrics"] = ["dense.ndcg@10", "dense.recall@10"]
    check_params(data, "params.yaml")
    data["evaluate"]["ndcg"] = [10, 100]
    data["compare"]["metrics"] = ["dense.recall@100"]
    check_params(data, "params.yaml")


@pytest.mark.parametrize(
    ("constant", "depth", "good"),
    [
        (1, 499, True), (1, 1000, False), (3, 1000, False), (4, 1000, True), (60, 1000, True),
        (247_996, 1000, True), (247_997, 1000, False), (10**9, 1000, False), (2, 100, True),
    ],
)  # fmt: skip
def test_a_rank_constant_for_which_rounding_may_tie_ranks_is_refused(
    constant: int, depth: int, good: bool
) -> None:
    def chosen(data: Data) -> None:
        data["hybrid"] = {"kind": "rrf", "rank_constant": constant}
        data["retrieve"]["depth"] = depth
        data["evaluate"]["recall"] = [10, 100]

    if good:
        data = shipped()
        chosen(data)
        check_params(data, "params.yaml")
    else:
        (told,) = lines(chosen)
        assert told.startswith(f"hybrid.rank_constant: with {constant}, the scores of ranks at ret")
        assert told.endswith(". Choose it nearer to retrieve.depth, or lower retrieve.depth.")


def test_the_least_step_is_twice_what_scores_are_rounded_to() -> None:
    assert pytest.approx(2 * 10**-SCORE_DECIMALS) == LEAST_STEP


@pytest.mark.parametrize("key", ["k1\x1b[31m", "k1\n::error::x"])
def test_an_unknown_key_reaches_the_terminal_without_control_characters(key: str) -> None:
    with pytest.raises(PipelineError, match="unknown key") as caught:
        check_params({"bm25": {key: 1}}, "params.yaml")
    assert_plain(caught.value)


@pytest.mark.parametrize("key", ["e\x1b[31m", "e\n::error::x"])
@pytest.mark.parametrize(
    ("told", "sections"),
    [
        ("missing, but encoder names", lambda key: {"encoder": {key: "a"}, "index": {}}),
        ("add `spelling: ", lambda key: {"encoder": {key: "a"}}),
        ("add `systems: ", lambda key: {"encoder": {key: "a"}}),
        ("encoder has no such locale", lambda key: {"encoder": {"es": "a"}, "index": {key: "b"}}),
        ("(it has: ", lambda key: {"encoder": {key: "a"}, "index": {"es": "b"}}),
        ("explore: encoder has no locale",
         lambda key: {"encoder": {key: "a"}, "explore": [key + "1"]}),
        ("is not defined", lambda key: {"encoder": {key: "a"}, "encoders": {"b": {}}}),
        ("(defined: ", lambda key: {"encoder": {"es": "a"}, "encoders": {key: {}}}),
        ("or trained (defined: ",
         lambda key: {"encoder": {"es": "a"}, "encoders": {}, "trained": {key: {}}}),
    ],
)  # fmt: skip
def test_a_name_of_a_locale_or_model_reaches_the_terminal_without_control_characters(
    key: str, told: str, sections: Callable[[str], Data]
) -> None:
    with pytest.raises(PipelineError, match=re.escape(told)) as caught:
        check_params(sections(key), "params.yaml")
    assert_plain(caught.value)


def assert_plain(error: PipelineError) -> None:
    """Assert that no line of a message holds a control character, or is an order to a CI runner."""
    lines = str(error).split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("::") for line in lines)
