"""Draw what a model learns from: `training.source` -> data/pairs/<name>, every drop counted."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, scratch_beside, write_json
from pipeline.core.log import log
from pipeline.core.outputs import refuse_overlap
from pipeline.core.params import Params
from pipeline.core.trained_folder import SIDES, card_of_pairs
from pipeline.pairs.leakage import draw_dev, read_evaluated
from pipeline.pairs.source import Judged, count_shared, read_judged
from pipeline.pairs.write import Written, write_pairs


def pairs(params: Params, name: str) -> stage.Done:
    """Write the judged products of the train queries, in two sides, with counts and a card.

    Raises:
        PipelineError: the source cannot be used, or a side has no product labelled E.
    """
    settings = params.training
    target, threads = layout.pairs(name), params.runtime.thread_count()
    refuse_overlap([Path(settings.source)], target.folder)
    evaluated = read_evaluated(params.language)
    with atomic_directory(target.folder) as folder:
        out = layout.PairFiles(folder)
        with scratch_beside(out.counts) as scratch:
            rows, judged = read_judged(params, name, evaluated, scratch)
            queries = {locale: each.queries for locale, each in judged.items()}
            dev = draw_dev(queries, settings.dev_share, settings.seed)
            written = write_pairs({side: out.side(side) for side in SIDES}, judged, dev)
        _refuse_without_exact(written)
        shared = count_shared(judged, evaluated)
        write_json(out.counts, {
            locale: {
                **each.counts, "products": {**each.counts["products"], **shared[locale]},
                **{side: written[side][locale] for side in SIDES},
            }
            for locale, each in judged.items()
        })  # fmt: skip
        write_json(out.card, card_of_pairs(params, out))
    _report(name, judged, written)
    return stage.Done(
        rows=rows,
        judgements=sum(each.counts["judgements"]["in"] for each in judged.values()),
        products=sum(each["out"] for each in shared.values()),
        queries=sum(each.counts["queries"]["in"] for each in judged.values()),
        threads=threads,
    )


def _refuse_without_exact(written: Written) -> None:
    for side, locales in written.items():
        if any(counts["E"] for counts in locales.values()):
            continue
        rows = sum(counts[label] for counts in locales.values() for label in tables.LABELS)
        queries = sum(counts["queries"] for counts in locales.values())
        raise PipelineError(
            f"training: no product of the {side} queries is labelled E (found {queries} queries "
            f"and {rows} judgements). Draw more queries (training.queries), choose another "
            "training.version or source, or another training.dev_share or seed."
        )


def _report(name: str, judged: Mapping[str, Judged], written: Written) -> None:
    for locale, each in judged.items():
        queries = each.counts["queries"]
        log.info(
            "pairs name=%s locale=%s train_queries=%d dev_queries=%d judgements=%d "
            "dropped_evaluated=%d",
            name, locale, *(written[side][locale]["queries"] for side in SIDES),
            each.counts["judgements"]["out"],
            queries["dropped_evaluated_id"] + queries["dropped_evaluated_text"],
        )  # fmt: skip
