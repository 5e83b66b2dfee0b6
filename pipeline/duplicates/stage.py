"""Group a locale's duplicates: data/clean + data/similar -> data/duplicates/<locale>.

Products of equal texts are duplicates. So are neighbours whose cosine reaches the threshold and
whose texts are nearly the same. `reports/duplicates/<locale>.json` has the counts, examples, what
the labels say, and what becomes of nDCG when the runs show one product of each group.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import files, layout, stage
from pipeline.core.arrays import Floats, Ints, sampled_rows
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.duplicates import collapse
from pipeline.duplicates.calibrate import CALIBRATED, Threshold, find_threshold
from pipeline.duplicates.groups import form_groups
from pipeline.duplicates.table import EQUAL, NEAR, Groups, write_groups
from pipeline.duplicates.texts import Distinct, Texts, find_equal, unique_pairs
from pipeline.evaluate.judged_run import Judgements
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.runs import ranking
from pipeline.runs.inputs import Ids, read_judgements
from pipeline.similar.table import check_neighbours, iter_neighbours
from pipeline.vectors.lengths import unit_or_zero
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.pairs import score_pairs
from pipeline.vectors.shards import ShardReader, take_any

EXAMPLES, EXAMPLE_MEMBERS, EXAMPLE_CHARACTERS = 50, 8, 200
"""How many groups the report shows, members of each, and characters of a text, at most."""

PAIRS_AT_ONCE = 16_384


def duplicates(params: Params, locale: str) -> stage.Done:
    """Write a locale's groups, and what there is to say of them."""
    manifest = read_manifest(params, locale)
    ids, _, pairs = read_judgements(locale)
    check_ids(manifest, "products", ids.products, locale)
    card = check_neighbours(params, locale, manifest)
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    distinct = find_equal(path, remedy)
    vectors = ShardReader(manifest, "products", locale)
    threshold, saturated, candidates = choose_candidates(params, locale, vectors, distinct)
    found = form_groups(distinct, *candidates)
    found = found._replace(cosine=cosines_of(vectors, found.product, found.kept))
    report = count_groups(found, distinct) | {
        "encoder": manifest.encoder,
        "table_sha256": manifest.products.table_sha256,
        "vectors_sha256": manifest.products.sha256(),
        "threshold": describe(threshold) | {"text": params.duplicates.text},
        "products_with_all_neighbours_near": saturated,
        **judge_groups(params, locale, ids, pairs, distinct, found),
        "examples": examples(ids, found, Texts(path, found.product, remedy)),
    }
    write_groups(
        params, locale, ids.products, found, threshold.cosine, manifest.products.table_sha256, card
    )
    files.write_json(layout.duplicates_report(locale), report)
    log.info(
        "duplicates locale=%s products=%d groups=%d duplicates=%d cosine=%s",
        locale, len(ids.products), report["groups"], report["duplicates"], threshold.cosine,
    )  # fmt: skip
    return stage.Done(products=len(ids.products), neighbours=params.similar.neighbours)


def choose_candidates(
    params: Params, locale: str, vectors: ShardReader, distinct: Distinct
) -> tuple[Threshold, int, tuple[Ints, Ints, Floats]]:
    """Calibrate the threshold, and find the pairs that reach it and have nearly the same text.

    Returns:
        The threshold; how many products have no neighbour below it, and may have more near
        duplicates than neighbours; the pairs, as `form_groups` takes them.
    """
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    total, settings = len(distinct.first), params.duplicates
    cosine = params.encoder_of(locale).similarity == "cosine"

    def near() -> Iterator[tuple[Ints, Ints, Floats]]:
        for products, others, scores in iter_neighbours(locale):
            yield products, others, scores if cosine else cosines_of(vectors, products, others)

    def speakers(chosen: Iterator[tuple[Ints, Ints, Floats]]) -> tuple[Ints, Ints, Floats]:
        of = distinct.first
        return unique_pairs(((of[a], of[b], cosines) for a, b, cosines in chosen), total)

    sampled = np.zeros(total, dtype=bool)
    sampled[sampled_rows(total, CALIBRATED)] = True
    first, second, cosines = speakers(_where(near(), lambda a, _: sampled[a]))
    alike = Texts(path, np.concatenate([first, second]), remedy).similarities(first, second)
    threshold = find_threshold(cosines, alike >= settings.text, settings.precision)
    least = threshold.cosine
    if least is None:
        none = np.empty(0, np.int64)
        return threshold, 0, (none, none, np.empty(0))
    below = np.zeros(total, dtype=bool)

    def reaching(products: Ints, cosines: Floats) -> NDArray[np.bool_]:
        below[products[cosines < least]] = True
        return cosines >= least

    first, second, _ = speakers(_where(near(), reaching))
    alike = Texts(path, np.concatenate([first, second]), remedy).similarities(first, second)
    same = alike >= settings.text
    saturated = int((~below).sum()) if params.similar.neighbours < total - 1 else 0
    return threshold, saturated, (first[same], second[same], alike[same])


def _where(
    pairs: Iterator[tuple[Ints, Ints, Floats]],
    chosen: Callable[[Ints, Floats], NDArray[np.bool_]],
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield the pairs that are chosen by their first row and their cosine."""
    for first, second, cosines in pairs:
        keep = chosen(first, cosines)
        yield first[keep], second[keep], cosines[keep]


def cosines_of(vectors: ShardReader, first: Ints, second: Ints) -> Floats:
    """Return the cosine of the vectors of row i and row i; 0 where one is zero."""
    found = np.empty(len(first))
    for start in range(0, len(first), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        both = take_any(
            np.concatenate([first[part], second[part]]),
            lambda rows: unit_or_zero(vectors.take(rows)),
        )
        one, other = np.split(both, 2)
        found[part] = score_pairs(one, other, "cosine")
    return np.round(found, ranking.SCORE_DECIMALS)


def describe(threshold: Threshold) -> dict[str, Any]:
    """Return a threshold as the report has it."""
    share = threshold.precision
    rounded = None if share is None else round(share, MEAN_DECIMALS)
    return threshold._asdict() | {"precision": rounded}


def count_groups(found: Groups, distinct: Distinct) -> dict[str, Any]:
    """Return how many products there are, and how many are in groups and why."""
    products, members = len(distinct.first), len(found.product)
    sizes = np.bincount(found.numbers())
    why = found.why()
    spare = members - len(sizes)
    return {
        "products": products,
        "groups": len(sizes),
        "products_in_groups": members,
        "duplicates": spare,
        "duplicates_share": round(spare / products, MEAN_DECIMALS),
        "duplicates_of_equal_text": why.count(EQUAL),
        "duplicates_of_near_text": why.count(NEAR),
        "products_without_own_text": products - len(np.unique(distinct.first)),
        "largest_group": int(sizes.max(initial=0)),
    }


def judge_groups(
    params: Params,
    locale: str,
    ids: Ids,
    pairs: tuple[Ints, Ints, Ints],
    distinct: Distinct,
    found: Groups,
) -> dict[str, Any]:
    """Return the parts of the report that need judgements: agreement of labels, collapsed runs."""
    if not len(pairs[0]):
        return {"not_judged": "there are no judgements"}
    kept = np.arange(len(ids.products))
    kept[found.product] = found.kept
    pool = Judgements.of_pool(ids, pairs)
    qrels = Judgements.from_pairs(*pairs, len(ids.queries))
    return {
        "labels": {
            "groups": collapse.summarise_agreement(params, pool, kept),
            "equal_texts": collapse.summarise_agreement(params, pool, distinct.first),
        },
        "runs": collapse.collapse_runs(params, locale, ids, qrels, kept),
    }


def examples(ids: Ids, found: Groups, texts: Texts) -> list[dict[str, Any]]:
    """Return some groups as people can read them: the kept product, then its duplicates."""
    bounds = np.flatnonzero(np.diff(found.kept, prepend=-1, append=-1))
    shown, why = [], found.why()
    for number in sampled_rows(len(bounds) - 1, EXAMPLES):
        members = slice(int(bounds[number]), int(bounds[number + 1]))
        first = slice(members.start, min(members.stop, members.start + EXAMPLE_MEMBERS))
        rows = found.product[first]
        shown.append(
            {
                "group": int(number),
                "size": members.stop - members.start,
                "products": [
                    {
                        "product_id": product,
                        "text": text[:EXAMPLE_CHARACTERS],
                        "cosine": round(float(cosine), MEAN_DECIMALS),
                        "text_similarity": round(float(alike), MEAN_DECIMALS),
                        "why": reason,
                    }
                    for product, text, cosine, alike, reason in zip(
                        ids.products.take(pa.array(rows)).to_pylist(), texts.of(rows),
                        found.cosine[first], found.text[first], why[first], strict=True,
                    )
                ],
            }
        )  # fmt: skip
    return shown
