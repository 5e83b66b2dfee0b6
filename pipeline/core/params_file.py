"""Read `params.yaml` and find every mistake in it at once, before any work."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from pipeline.core import layout, params_text
from pipeline.core.errors import (
    PipelineError,
    did_you_mean,
    explain,
    on_one_line,
    one_line,
    shorten,
)
from pipeline.core.languages import UNSPACED
from pipeline.core.param_types import MOST_NAME, NAME, NO_RERANKER
from pipeline.core.params import (
    AS_TYPED,
    BY_LOCALE,
    CORRECTED,
    ENCODER,
    ENCODER_MEASURES,
    LEAST_STEP,
    MEAN,
    FolderWeights,
    HnswIndex,
    HubWeights,
    Ivf,
    Params,
    RrfFusion,
    Runtime,
    Weights,
)
from pipeline.core.systems import SYSTEMS, TAKEN
from pipeline.core.trained import Precision, contradictions

PARAMS_FILE = layout.PARAMS


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises:
        PipelineError: the file is missing, is not YAML 1.2, or breaks a rule; the message lists
            every broken rule with the key and the value found.
    """
    return check_params(params_text.read_data(path), str(path))


def check_params(data: object, where: str) -> Params:
    """Return `data` as `Params`, or raise a `PipelineError` that lists everything wrong with it."""
    try:
        # Via JSON: validation stays strict, yet lists may become tuples.
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as err:
        raise PipelineError(f"{where}: {one_line(err)}. Put such a value in quotes.") from err
    wrong = [*_undefined_locales(data), *_undefined_names(data)] if isinstance(data, dict) else []
    try:
        params = Params.model_validate_json(text)
    except ValidationError as err:
        wrong = [*explain(err, Params), *wrong]
    else:
        wrong.extend(_contradictions(params))
        if not wrong:
            return params
    raise PipelineError(f"{where}:\n" + "\n".join(f"  {line}" for line in wrong))


def is_name(word: str) -> bool:
    """Say whether a locale or a model may have this name, written in params.yaml as it is."""
    fits = re.fullmatch(NAME, word) and len(word) <= MOST_NAME
    return bool(fits) and not params_text.is_read_otherwise(word)


def refuse_locale_name(locale: str) -> None:
    """Raise a `PipelineError` if a locale cannot have this name."""
    if not is_name(locale):
        raise PipelineError(
            f"the locale {shorten(locale)}: must be of small letters, digits and hyphens, "
            f"{MOST_NAME} at most, such as de. Correct it."
        )


def _maps(data: dict[str, object]) -> dict[str, dict[str, object]]:
    """Return the sections that are mappings."""
    return {section: value for section, value in data.items() if isinstance(value, dict)}


def _shown(names: Iterable[object]) -> list[str]:
    """Return names that may be anything, as messages show them."""
    return [on_one_line(str(name)) for name in names]


def _undefined_locales(data: dict[str, object]) -> Iterator[str]:
    """Say which sections lack a locale or have one too many, even if types are wrong too."""
    maps = _maps(data)
    if not (locales := maps.get("encoder", {})):
        return
    shown = _shown(locales)
    for section in BY_LOCALE:
        chosen = maps.get(section, locales)
        for locale, name in zip(locales, shown, strict=True):
            if locale not in chosen:
                yield f"{section}.{name}: missing, but encoder names the locale {locale!r}"
        for name in _shown(locale for locale in chosen if locale not in locales):
            yield f"{section}.{name}: encoder has no such locale (it has: {', '.join(shown)})"
    if "spelling" not in data:
        lines = ", ".join(f"{name}: {AS_TYPED}" for name in shown)
        yield f"spelling: add `spelling: {{{lines}}}`; a locale may be {CORRECTED} instead"
    if "systems" not in data:
        lines = ", ".join(f"{name}: {{}}" for name in shown)
        yield f"systems: add `systems: {{{lines}}}`; a locale may name runs of other engines"
    explored = data.get("explore")
    for locale in explored if isinstance(explored, list) else ():
        if isinstance(locale, str) and locale not in locales:
            yield (
                f"explore: encoder has no locale {locale!r} (it has: "
                f"{', '.join(shown)}){did_you_mean(locale, shown)}"
            )


def _undefined_names(data: dict[str, object]) -> Iterator[str]:
    """Say which names of models and indexes are undefined, even if types are wrong too."""
    maps = _maps(data)
    trained = maps.get("trained", {})
    for section, plural, kind in (
        ("encoder", "encoders", "encoder"),
        ("index", "indexes", None),
        ("rerank", "rerankers", "reranker"),
    ):
        more = [name for name, each in trained.items() if kind and _may_be(kind, each)]
        for locale, name in maps.get(section, {}).items():
            defined = [*map(str, maps.get(plural, [name])), *more]
            if isinstance(name, str) and name not in defined:
                yield (
                    f"{section}.{on_one_line(str(locale))}: {name!r} is not defined under {plural}"
                    f"{' or trained' if more else ''} "
                    f"(defined: {', '.join(_shown(defined))}){did_you_mean(name, defined)}"
                )


def _may_be(kind: str, entry: object) -> bool:
    """Say whether an entry of `trained`, which may be anything, is not one of another kind."""
    return not isinstance(entry, dict) or entry.get("kind") in (None, kind)


def _contradictions(params: Params) -> Iterator[str]:
    """Say which settings exclude each other, which types alone cannot express."""
    if MEAN in params.encoder:
        yield (
            f"encoder.{MEAN}: must not be the name of a locale: the summary has a row {MEAN!r}. "
            "Choose another."
        )
    yield from _uncorrectable(params)
    yield from _hidden_inputs(params)
    yield from _unfit_systems(params)
    yield from _unfit_indexes(params)
    untrainable = list(_untrainable(params))
    yield from untrainable
    if not untrainable:
        yield from _unusable(params)
        yield from _unfit_rerankers(params)
    if params.runtime.engine == "openvino" and params.runtime.device not in ("auto", "cpu"):
        yield (
            f"runtime.device: {params.runtime.device}, but runtime.engine openvino computes on the "
            "CPU. Set device to auto or cpu, or engine to auto or torch."
        )
    yield from _off_cluster(params.runtime)
    yield from _too_shallow(params)
    yield from _not_kept(params)
    yield from _too_few_draws(params)


def _uncorrectable(params: Params) -> Iterator[str]:
    """Say which locales have no words to correct."""
    for locale, spelling in params.spelling.items():
        language = params.language.get(locale, "any")
        if spelling == CORRECTED and language in UNSPACED:
            yield (
                f"spelling.{locale}: must be {AS_TYPED} (found {spelling}): the language "
                f"{language} is written without spaces, so its queries have no words to compare. "
                f"Set it to {AS_TYPED}."
            )


def _hidden_inputs(params: Params) -> Iterator[str]:
    """Say which sources and runs DVC would never read again."""
    given = {"sample.source": params.sample.source, "training.source": params.training.source}
    for locale, runs in params.systems.items():
        given |= {f"systems.{locale}.{name}": path for name, path in runs.items()}
    for key, path in given.items():
        if layout.is_hidden(Path(path)):
            yield f"{key}: .dvcignore hides it from DVC (found {shorten(path)}). Rename it."


def _unfit_systems(params: Params) -> Iterator[str]:
    """Say which other engines cannot have their name, or their run that place."""
    for locale, runs in params.systems.items():
        for name, path in runs.items():
            if name in TAKEN:
                yield (
                    f"systems.{locale}.{name}: the reports use this name already (taken: "
                    f"{', '.join(TAKEN)}). Choose another one."
                )
            if not name[0].isalpha():
                yield (
                    f"systems.{locale}.{name}: must begin with a letter, as else "
                    f"`make try SET=+systems.{locale}.{name}=…` cannot name it. Choose another "
                    "name."
                )
            if layout.GIVEN_RUNS not in Path(path).parents or ".." in Path(path).parts:
                yield (
                    f"systems.{locale}.{name}: must be a file in {layout.GIVEN_RUNS} (found "
                    f"{shorten(path)}): the stage systems sees changes only there. Move the run "
                    "there."
                )


def _untrainable(params: Params) -> Iterator[str]:
    """Say which entries under `trained` cannot be trained as they say."""
    for name, entry in params.trained.items():
        if name in params.encoders:
            yield _two_models(f"trained.{name}", "encoders")
        if name in params.rerankers:
            yield _two_models(f"trained.{name}", "rerankers")
        yield from _sourceless(name, params)
        yield from contradictions(name, entry)


def _two_models(where: str, section: str) -> str:
    """Return what is wrong with a name that another section has too."""
    return f"{where}: {section} has this name too, so it would mean two models. Rename one of them."


def _sourceless(name: str, params: Params) -> Iterator[str]:
    """Say which base or teacher of an entry under `trained` is missing, or leads back to it."""
    entry, told = params.trained[name], False
    for key, found, defined in (
        ("base", entry.base, params.encoder_names()),
        ("teacher", entry.teacher, (NO_RERANKER, *params.reranker_names())),
    ):
        if found not in defined:
            told, kind = True, "encoder" if key == "base" else "reranker"
            yield (
                f"trained.{name}.{key}: {found!r} is no {kind} under {kind}s or trained (defined: "
                f"{', '.join(dict.fromkeys(defined))}){did_you_mean(found, list(defined)) or '.'} "
                "Name one."
            )
    if not told and (circle := _circle(name, params)):
        key, kind = ("base", "encoders") if circle[1] == entry.base else ("teacher", "rerankers")
        yield (
            f"trained.{name}.{key}: it would be trained from itself (found "
            f"{' from '.join(circle)}). Name an entry of {kind}."
        )


def _circle(name: str, params: Params) -> list[str]:
    """Return the names that lead from an entry under `trained` back to itself; [] if none do."""
    waiting, seen = [[name]], set()
    while waiting:
        chain = waiting.pop()
        for source in params.trained[chain[-1]].sources():
            if source == name:
                return [*chain, source]
            if source in params.trained and source not in seen:
                seen.add(source)
                waiting.append([*chain, source])
    return []


def _unusable(params: Params) -> Iterator[str]:
    """Say which chosen encoders cannot be had, computed here, or trained on what is evaluated."""
    chosen = set(params.encoder.values()) & set(params.encoder_names())
    used = params.trained_for((*chosen, *params.rerank.values()))
    bases = {params.trained[each].base for each in used}
    for name in sorted(chosen | bases):
        if name in params.encoders:
            yield from _unpinned(
                f"encoders.{name}", params.encoders[name].weights, learned=name in bases
            )
        where = params.entry_of(name)
        yield from _unsupported(where, params.encoder_named(name).precision, params.runtime)
    same = Path(params.sample.source) == Path(params.training.source)
    if used and same and "train" in params.sample.splits:
        yield (
            f"sample.splits: train is evaluated, and trained.{used[0]} learns from the train split "
            f"of the same source ({params.sample.source}). Set sample.splits to [test]."
        )


def _unfit_indexes(params: Params) -> Iterator[str]:
    """Say which indexes cannot be searched as params.yaml asks."""
    for name in sorted(set(params.index.values())):
        index = params.indexes.get(name)
        if isinstance(index, HnswIndex) and index.ef_search < params.retrieve.depth:
            yield (
                f"indexes.{name}.ef_search: {index.ef_search} is less than retrieve.depth "
                f"{params.retrieve.depth}, and a search finds at most ef_search. Raise it."
            )
    for name, index in params.indexes.items():
        if isinstance(index, Ivf) and index.probes > index.lists:
            yield (
                f"indexes.{name}.probes: {index.probes} is more than the {index.lists} lists. "
                f"Set at most {index.lists}."
            )


def _unfit_rerankers(params: Params) -> Iterator[str]:
    """Say which rerankers cannot be used as params.yaml asks."""
    yield from _contradicting_rerankers(params)
    yield from _unfit_teachers(params)
    chosen = set(params.rerank.values()) & set(params.reranker_names()) - {NO_RERANKER}
    used = params.trained_for((*params.encoder.values(), *chosen))
    teachers = {params.trained[each].teacher for each in used} - {NO_RERANKER}
    for name in sorted(chosen | teachers):
        if (reranker := params.reranker_named(name)) is None:
            continue
        entry = f"{'rerankers' if name in params.rerankers else 'trained'}.{name}"
        learned = name in teachers and name in params.rerankers
        yield from _unpinned(entry, reranker.weights, learned=learned)
        yield from _unsupported(entry, reranker.precision, params.runtime)
        for field in () if reranker.fields == "all" else reranker.fields:
            if field not in params.clean.fields:
                yield (
                    f"rerankers.{name}.fields: {field} is not under clean.fields (it has: "
                    f"{', '.join(params.clean.fields)}), so the texts lack it. Leave it out, or "
                    "add it to clean.fields."
                )
    if chosen and params.reranking.depth > params.retrieve.depth:
        yield (
            f"reranking.depth: {params.reranking.depth} is more than retrieve.depth "
            f"{params.retrieve.depth}, and a run has no more products. Lower it."
        )


def _contradicting_rerankers(params: Params) -> Iterator[str]:
    """Say which entries under `rerankers` contradict themselves, or another section."""
    for name in params.rerankers:
        if name in params.encoders:
            yield _two_models(f"rerankers.{name}", "encoders")
    if params.rerankers.get(NO_RERANKER, "missing") is not None:
        wrong = "must be empty" if NO_RERANKER in params.rerankers else "missing"
        yield (
            f"rerankers.{NO_RERANKER}: {wrong}: `rerank` names it where nothing is reranked. Write "
            "the name alone."
        )
    for name, reranker in params.rerankers.items():
        if reranker is None and name != NO_RERANKER:
            yield f"rerankers.{name}: must not be empty. Say what it is, or remove it."
        elif reranker is not None and (reranker.labels == 1) != (reranker.gains is None):
            yield (
                f"rerankers.{name}.gains: must be empty for a model of 1 label, whose score is its "
                "logit, and 4 numbers, for E, S, C and I, for a model of 4 labels (found "
                f"{reranker.gains and list(reranker.gains)} for {reranker.labels})."
            )


def _unfit_teachers(params: Params) -> Iterator[str]:
    """Say which teachers cannot score the pairs that their models learn from."""
    for name, entry in params.trained.items():
        if entry.teacher == NO_RERANKER or not (teacher := params.reranker_named(entry.teacher)):
            continue
        where = f"trained.{name}.teacher: {entry.teacher}"
        if teacher.fields != "all":
            yield (
                f"{where} reads some fields (found {', '.join(teacher.fields)}), and pairs have "
                "whole texts. Name a reranker with fields: all."
            )
        spoken = set(teacher.languages)
        for locale in entry.locales if "any" not in spoken else ():
            if (language := params.language.get(locale, "any")) not in {"any", *spoken}:
                yield (
                    f"{where} does not speak {language}, the language of the locale {locale} (it "
                    f"speaks: {', '.join(teacher.languages)}). Name another teacher, or leave out "
                    "the locale."
                )


def _too_shallow(params: Params) -> Iterator[str]:
    """Say which cutoffs retrieve.depth does not reach, and where rounding could tie ranks."""
    depth = params.retrieve.depth
    if params.evaluate.deepest() > depth:
        yield (
            f"retrieve.depth: {depth} is less than the deepest cutoff under evaluate, "
            f"{params.evaluate.deepest()}. Raise retrieve.depth or lower the cutoff."
        )
    if isinstance(params.hybrid, RrfFusion):
        constant = params.hybrid.rank_constant
        if (step := (constant + 1) / 2 / (constant + depth) ** 2) < LEAST_STEP:
            yield (
                f"hybrid.rank_constant: with {constant}, the scores of ranks at retrieve.depth "
                f"{depth} are {step:.1e} apart, and at less than {LEAST_STEP:.0e} the rounding of "
                "scores may tie them. Choose it nearer to retrieve.depth, or lower retrieve.depth."
            )


def _too_few_draws(params: Params) -> Iterator[str]:
    """Say if there are so few draws that no drop, however large, can be refused."""
    together = len(params.encoder) * len(params.compare.metrics)
    if few := params.uncertainty.too_few_for(together, params.compare.alpha):
        yield f"uncertainty.samples: {few} There is a test for each locale and metric."


KEPT_WHERE = {
    "ndcg": "put {k} first under evaluate.ndcg",
    "recall": "list {k} under evaluate.ndcg and under evaluate.recall",
    "judged": "put {k} first under evaluate.judged",
    "mrr": "set evaluate.mrr to {k}",
    "ndcg_judged_only": "set evaluate.ndcg_judged_only to {k}",
}
"""How to make evaluate keep a measure query by query (see `Evaluate.per_query`)."""


def _not_kept(params: Params) -> Iterator[str]:
    """Say which metrics to compare are not kept query by query."""
    asked, measures = params.compare, params.evaluate.per_query()
    first, *others = map(params.evaluated_systems, params.locales)
    systems = [system for system in first if all(system in other for other in others)]
    known = [f"{system}.{measure}" for system in systems for measure in measures]
    known += [f"{ENCODER}.{measure}" for measure in ENCODER_MEASURES]
    for metric in asked.metrics:
        system, _, measure = metric.partition(".")
        if measure.startswith("pool_") and system in systems and system not in SYSTEMS:
            yield f"compare.metrics: {metric!r}: another engine has no measure of the pool"
            continue
        if metric in known:
            continue
        name, _, k = metric.partition(".")[2].partition("@")
        way = f", or {KEPT_WHERE[name].format(k=k)}" if k and name in KEPT_WHERE else ""
        yield (
            f"compare.metrics: {metric!r} is not kept query by query (kept of "
            f"{', '.join(systems)}: {', '.join(measures)}; of {ENCODER}: "
            f"{', '.join(ENCODER_MEASURES)}){did_you_mean(metric, known) or '.'} "
            f"Name one of these{way}."
        )


def _unpinned(entry: str, weights: Weights, *, learned: bool) -> Iterator[str]:
    """Say why a chosen entry's weights cannot be trusted to be the same tomorrow.

    What is `learned` from, a base or a teacher, must be pinned in a folder too: no stage watches
    the folder, so another model there would train nothing again.
    """
    if learned and isinstance(weights, FolderWeights) and weights.sha256 is None:
        yield (
            f"{entry}.weights.sha256: must not be empty, since a model in use learns from it. Give "
            f"the hash of {weights.path}; with 64 zeros, the message shows it."
        )
    if isinstance(weights, HubWeights):
        if weights.code_revision is not None and not weights.remote_code:
            yield (
                f"{entry}.weights.code_revision: {weights.code_revision} without "
                "remote_code: true has no effect. Set both or neither."
            )
        if weights.revision is None:
            yield (
                f"{entry}.weights.revision: must not be empty. Pin the 40-hex commit that "
                f"`git ls-remote https://huggingface.co/{weights.model} HEAD` prints."
            )
        if weights.remote_code and weights.code_revision is None:
            yield (
                f"{entry}.weights.code_revision: must not be empty. The model runs code "
                "from the repository named under auto_map in its config.json. Pin that "
                "repository's 40-hex commit."
            )


def _unsupported(entry: str, precision: Precision, runtime: Runtime) -> Iterator[str]:
    """Say why the engine or device cannot compute a chosen entry's precision."""
    where = f"{entry}.precision: {precision}"
    if precision == "int8" and runtime.engine == "torch":
        yield f"{where} needs the engine openvino. Set runtime.engine to auto or openvino."
    if precision == "int8" and runtime.device not in ("auto", "cpu"):
        yield f"{where} is for CPUs. Set runtime.device to auto or cpu."
    if precision == "float16" and runtime.engine == "openvino":
        yield f"{where} needs the engine torch. Set runtime.engine to auto or torch."


def _off_cluster(runtime: Runtime) -> Iterator[str]:
    """Say which settings of a Ray cluster have no effect."""
    if runtime.executor == "local" and runtime.ray_address is not None:
        yield (
            f"runtime.ray_address: {runtime.ray_address!r} without runtime.executor ray has "
            "no effect. Set executor to ray, or leave the address empty."
        )
    if runtime.executor == "ray" and runtime.device == "mps":
        yield (
            "runtime.device: mps, which Ray does not support. Set auto, cpu or cuda, or set "
            "executor to local."
        )
