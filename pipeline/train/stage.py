"""Train a model under `trained`: from pairs and a base's weights to its folder, card and curve."""

import csv
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core import layout, stage
from pipeline.core.contract import write_contract
from pipeline.core.cpu import widest_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, sha256_file, sha256_lines, write_json
from pipeline.core.log import log
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import Encoder, Params, Runtime
from pipeline.core.tables import PAIRS, read_table
from pipeline.core.trained import OF_THE_CONTRACT, TrainedEncoder, TrainedReranker
from pipeline.core.trained_folder import SIDES, refuse_other_model
from pipeline.encoders.engine import choose_engine
from pipeline.encoders.model_folder import folder_sha256
from pipeline.encoders.weights import resolve_weights
from pipeline.store.upkeep import prune_after_run
from pipeline.train.bases import leave_out, read_learned
from pipeline.train.catalogue import draw_others
from pipeline.train.checkpoint import Card, Checkpoints, disk_errors, mine_once
from pipeline.train.development import POOL, Development
from pipeline.train.examples import Examples, label_counts
from pipeline.train.loop import Trainer, deterministic
from pipeline.train.mining import add_unjudged
from pipeline.train.pairs import Pairs, pairs_of
from pipeline.train.task import Base, Task, load, mine, mined_tokens, task_of
from pipeline.train.teacher import Teacher

CARD_SCHEMA = 2
CODE = ("core", "encoders", "evaluate", "rerank", "runs", "store", "train", "vectors")
"""The packages of `pipeline` that a training runs: those that its stage depends on in DVC."""

_LIBRARIES = ("numpy", "sentence-transformers", "tokenizers", "torch", "transformers")


def train(params: Params, name: str) -> stage.Done:
    """Train a model and write its folder; a training that was interrupted goes on."""
    started, settings, where = time.time(), params.trained[name], f"trained.{name}"
    files = layout.pairs(name)
    pairs, dev, learned = _read_pairs(params, name)
    base = _base(params, settings, where)
    development = Development(dev, str(files.dev), catalogue=settings.kind == "encoder")
    device = _device(base.spec, params.runtime)
    teacher = None if settings.teacher == NO_RERANKER else Teacher(params, settings.teacher)
    about = {
        "kind": settings.kind,
        "base": base.name,
        "base_sha256": base.weights.sha256,
        **({"teacher": teacher.about} if teacher else {}),
        "pairs": {side: sha256_file(files.side(side)) for side in SIDES},
        "settings": settings.of_weights(),
    }
    training = {
        **about,
        "settings": settings.of_training(),
        "dev_queries": sha256_lines(dev.queries),  # those that may choose the epoch
        **_surroundings(settings, base, device),
    }
    checkpoints = Checkpoints(name, training)
    tokens = 0.0
    with deterministic(settings.threads):
        model = load(settings, base, pairs, where)
        if settings.mined:
            # Not the teacher: it scores what was mined.
            key = {**training, "settings": settings.of_mining(), "teacher": None}
            found, tokens = mine_once(
                name, key, lambda: mine(settings, base, pairs, dev, device, where)
            )
            pairs = add_unjudged(pairs, found["train_group"], found["train_product"])
            if settings.kind == "reranker":
                dev = add_unjudged(dev, found["dev_group"], found["dev_product"])
            development = Development(dev, str(files.dev), catalogue=settings.kind == "encoder")
        task = task_of(settings, model, pairs, development, device, where)
    if teacher and isinstance(task.examples, Examples):
        # After all that may be refused: scoring may take hours.
        task.examples.learn_from(teacher.log_odds)
    with deterministic(settings.threads):
        minutes = params.runtime.checkpoint_minutes
        trainer = Trainer(task, settings, checkpoints, minutes, where)
        card = trainer.run()
        log.info(
            "train name=%s steps=%d reused=%d trained=%d",
            name, card.step, card.step - trainer.trained, trainer.trained,
        )  # fmt: skip
        interpolated = trainer.interpolate() if settings.tuned_share < 1 else None
        _warn_if_worse(card, interpolated, development.chooses, where)
        with atomic_directory(layout.model(settings.kind, name).folder) as folder:
            counts = {**_counts(pairs, task), **learned}
            _write(layout.ModelFiles(folder), task, card, interpolated, about, counts)
            entry = params.encoder_named if settings.kind == "encoder" else params.reranker_named
            write_contract(layout.ModelFiles(folder).contract, entry(name))
    checkpoints.remove_others(params.trained)
    if teacher:
        prune_after_run(params.runtime.store_gigabytes, started)
    return stage.Done(
        settings.cost_kind(),
        pairs=len(pairs),
        steps=trainer.trained,
        tokens=round(tokens + task.learner.tokens + (teacher.tokens / 3 if teacher else 0)),
        threads=settings.threads,
    )


def _read_pairs(params: Params, name: str) -> tuple[Pairs, Pairs, dict[str, int]]:
    """Return the pairs of train and of dev, and how many dev queries are left out.

    The products of dev are those that its queries are searched among: all of dev, some of train. A
    reranker without mined products orders judged ones alone, and needs no others.
    """
    settings = params.trained[name]
    files, remedy = layout.pairs(name), layout.pairs_hint(name)
    learned_from, whole = (read_table(path, PAIRS, remedy) for path in (files.train, files.dev))
    kept, counts = _not_learned(params, name, whole)
    others = None
    if settings.kind == "encoder" or settings.mined:
        both = pa.concat_tables([whole, learned_from])
        others = draw_others(kept, both, settings.seed)
    return pairs_of(learned_from), pairs_of(kept, others), counts


def _not_learned(params: Params, name: str, whole: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return the dev pairs without queries that base or teacher learned from, and their count."""
    settings = params.trained[name]
    sources = params.trained_for(settings.sources())
    if not sources:
        return whole, {}
    kept = leave_out(whole, read_learned(params, sources))
    if not len(kept):
        of_base = leave_out(whole, read_learned(params, params.trained_for([settings.base])))
        key = "teacher" if len(of_base) else "base"
        raise PipelineError(
            f"trained.{name}.{key}: {' and '.join(sources)} learned from every dev query of "
            f"{name}, so none can choose an epoch. Learn from the same locales, or raise "
            "training.dev_share."
        )
    gone = pairs_of(whole).queries_count() - pairs_of(kept).queries_count()
    if gone:
        log.warning(
            "warning: trained.%s: %d of the dev queries are left out: %s learned from them",
            name, gone, " or ".join(sources),
        )  # fmt: skip
    return kept, {"dev_queries_learned_before": gone}


def _base(params: Params, settings: TrainedEncoder | TrainedReranker, where: str) -> Base:
    name = settings.base
    spec = params.encoder_named(name)
    # A reranker's limit is what the model can read: `CrossEncoder` checks that.
    if settings.kind == "encoder" and settings.max_tokens > spec.max_tokens:
        raise PipelineError(
            f"{where}.max_tokens: {settings.max_tokens} is more than the {spec.max_tokens} that "
            f"its base {name} reads. Set at most that."
        )
    weights = resolve_weights(spec, name)
    refuse_other_model(params, name, weights.sha256)
    return Base(name, spec, weights)


def _device(spec: Encoder, runtime: Runtime) -> str:
    """Return where torch computes; the base's precision does not count."""
    return choose_engine(
        spec.model_copy(update={"precision": "float32"}),
        runtime.model_copy(update={"engine": "torch"}),
    ).device


def _surroundings(
    settings: TrainedEncoder | TrainedReranker, base: Base, device: str
) -> dict[str, Any]:
    """Return what decides a training's bytes beside the settings and the pairs."""
    unread = {"weights", "languages", "max_tokens", *OF_THE_CONTRACT}
    return {
        "code": hash_code(Path(__file__).parents[1]),
        "contract": base.spec.model_dump(mode="json", exclude=unread),
        "device": device,
        "mined_tokens": mined_tokens(settings, base) if settings.mined else None,
        "instructions": widest_instructions(),
        "libraries": {library: version(library) for library in _LIBRARIES},
    }


def hash_code(packages: Path) -> str:
    """Return the hash of the code of `CODE`, all files of Python beneath a folder of packages.

    Forms that are raised by hand, such as those of the store's identities, are in it too.
    """
    paths = sorted(path for name in CODE for path in (packages / name).rglob("*.py"))
    return sha256_lines(
        f"{path.relative_to(packages).as_posix()} {sha256_file(path)}" for path in paths
    )


def _base_and_written(
    card: Card, interpolated: dict[str, float] | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the dev measures of the base, and of the weights that are written.

    Without measures of `interpolated` weights, the best epoch's are written as they are.
    """
    ends = [point.dev for point in card.curve if point.dev]
    return ends[0], interpolated or ends[card.best_epoch or 0]


def _warn_if_worse(
    card: Card, interpolated: dict[str, float] | None, chooses: str, where: str
) -> None:
    """Warn if what is written is no better than the base on the dev queries."""
    base, written = _base_and_written(card, interpolated)
    if written[chooses] > base[chooses]:
        return
    said, first = "no epoch is better than the base", "Lower lr"
    if interpolated:
        said = "the interpolated weights are no better than the base"
        first = "Change tuned_share, lower lr"
    log.warning(
        "warning: %s: %s: %s is %.4f, and the base has %.4f. %s, train fewer epochs, or do not use "
        "this model",
        where, said, chooses, written[chooses], base[chooses], first,
    )  # fmt: skip


def _counts(pairs: Pairs, task: Task) -> dict[str, int]:
    development = task.development
    counts = {
        "examples": task.examples.size,
        "queries": pairs.queries_count(),
        "dev_queries": development.queries,
        "dev_queries_of_one_label": development.of_one_label,
        **{f"pairs_{label}": count for label, count in label_counts(pairs).items()},
        "pairs_mined": int((~pairs.judged).sum()),
    }
    if development.chooses != POOL:
        counts["dev_products"] = development.products
    if isinstance(task.examples, Examples):
        counts["positives_without_negative"] = task.examples.without_negative
        counts["queries_without_negative"] = task.examples.queries_without_negative
        if task.examples.taught is not None:
            counts["pairs_taught"] = int(np.isfinite(task.examples.taught).sum())
    return counts


def _write(
    files: layout.ModelFiles, task: Task, card: Card, interpolated: dict[str, float] | None,
    about: dict[str, Any], counts: dict[str, int],
) -> None:  # fmt: skip
    """Write the model, what it is, and how the training went."""
    files.weights.mkdir()
    with disk_errors(files.weights):
        task.save(files.weights)
    ends = [point for point in card.curve if point.dev]
    chooses = task.development.chooses
    base, written = _base_and_written(card, interpolated)
    write_json(files.card, {
        "card_schema": CARD_SCHEMA,
        **about,
        "weights_sha256": folder_sha256(files.weights),
        "best_epoch": card.best_epoch,
        "better_than_base": written[chooses] > base[chooses],
        "chosen_by": chooses,
        "epochs": [{"epoch": at, **point.dev} for at, point in enumerate(ends)],
        **({"written": written} if interpolated else {}),
        "steps": card.step,
        "counts": counts,
    })  # fmt: skip
    _write_curve(files.curve, card, list(ends[0].dev))


def _write_curve(path: Path, card: Card, measures: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "step", "loss", *measures, "kept"])
        for point in card.curve:
            loss = "" if point.loss is None else point.loss
            dev = [point.dev.get(measure, "") for measure in measures]
            kept = int(bool(point.dev) and point.epoch == card.best_epoch)
            rows.writerow([point.epoch, point.step, loss, *dev, kept])
