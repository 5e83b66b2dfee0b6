"""Artefacts of evaluate, clean, embed and tradeoff as the stage report reads them, made by seed."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import files, layout, tables
from pipeline.core.cards import read_model
from pipeline.core.contract import contract_of
from pipeline.core.params import Params
from pipeline.core.systems import SYSTEMS
from pipeline.core.tables import LABELS
from pipeline.encoder_scores import stage as encoder_scores
from pipeline.evaluate import exact_ranks, per_query, plots
from pipeline.evaluate.system_scores import read_judged
from pipeline.evaluate.top_products import TOP
from pipeline.report.inputs import SHOWN, UNJUDGED
from pipeline.report.tradeoff import TradeOff, hash_judgements
from pipeline.runs.card import INDEX_SETTINGS, RANDOM, index_settings, of_index
from pipeline.runs.inputs import read_judgements
from pipeline.runs.ranking import rank_pairs
from pipeline.vectors.manifest import (
    MANIFEST_SCHEMA,
    Cut,
    Manifest,
    Shard,
    Side,
    SideCut,
    Truncation,
    side_of,
)
from tests.helpers.artefacts import nothing_cut

NASTY = (
    "<script>document.title = 'owned'</script>",
    "</script><img src=x onerror=\"document.title='owned'\">",
    "{{ 7 * 7 }} & &amp; \"double\" 'single' `back` \\u003c ${x}",
    "👩‍👩‍👧‍👦 emoji 🎧 and 日本語 ノートパソコン",
    "right \u202eto left\u202c and \u2066isolated\u2069 עברית العربية",
    "line\u2028and\u2029paragraph\tseparators\x07",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2,
    "$x^2$ % # _ <!-- comment --> ]]> <![CDATA[ x",
)
"""What queries and titles may hold, and a page must show as it is."""

ONE: Mapping[str, Any] = {
    "encoder": {"es": "labse"}, "index": {"es": "flat"}, "language": {"es": "es"},
    "rerank": {"es": "none"}, "spelling": {"es": "typed"}, "systems": {"es": {}},
}  # fmt: skip
"""Changes of params.yaml that leave one locale."""

_WORDS = {
    "us": "black wireless ear buds running shoes for women without laces usb c cable 6 ft",
    "es": "auriculares inalámbricos zapatillas de correr para mujer sin cordones niño 2 m",
    "jp": "ワイヤレス イヤホン 黒 ランニング シューズ レディース 防水 充電 ケーブル 2m",
}
_GOOD = {"random": 0.02, "bm25": 0.52, "dense": 0.58, "hybrid": 0.64, "rerank": 0.69}


WITHOUT_TEXT = "B-without-text"
"""The last Exact product; it is in no table of products."""


def write_locale(
    given: Params,
    locale: str,
    queries: int = 60,
    seed: int = 0,
    measured: bool = True,
    trained: Sequence[tuple[object, ...]] = (),
) -> None:
    """Write all that the page reads of a locale, into the working folder.

    Args:
        given: the parameters.
        locale: whose artefacts.
        queries: how many; the first are `NASTY`.
        seed: of all numbers and words.
        measured: whether there are index trade-offs, of the vectors of the manifest.
        trained: the rows of the table of trainings.
    """
    rng = np.random.default_rng([seed, *locale.encode()])
    measures = given.evaluate.headline()
    texts = [_text(rng, locale, row) for row in range(queries)]
    query_ids = sorted(rng.choice(10**6, queries, replace=False).tolist())
    others = tuple(sorted(given.systems[locale]))
    values = _values(rng, measures, queries, (*SHOWN, *others))
    top = _top(rng, locale, query_ids, (*SYSTEMS, *others))
    exact = _write_exact(rng, locale, query_ids, top)
    for system, measure in product(
        (*SYSTEMS, *others), (m for m in measures if m.startswith("recall@"))
    ):
        ranks = np.array([row[system] or np.inf for row in exact]).reshape(queries, -1)
        values[system][measure] = (ranks <= int(measure[7:])).mean(axis=1)
    _write_numbers(given, locale, values, measures, queries)
    _write_tables(locale, query_ids, texts, values, top)
    _write_slices(rng, given, locale, values, top, query_ids)
    _write_clean(given, locale, query_ids)
    manifest = _write_inputs(given, locale, queries)
    _write_encoder(given, manifest, seed)
    seal(locale)
    layout.training_plot(locale).parent.mkdir(parents=True, exist_ok=True)
    plots.write_training(layout.training_plot(locale), trained)
    if measured:
        write_tradeoff(rng, given, locale, manifest)


def _write_encoder(given: Params, manifest: Manifest, seed: int) -> None:
    """Write what an encoder with random scores is worth by itself."""
    judged = read_judged(manifest.locale)
    rows, codes = judged.pool.positions(), judged.pool.codes
    scores = np.random.default_rng(seed).random(len(rows))
    encoder_scores.write_reports(given, manifest, judged, rank_pairs(rows, codes, scores))


def _text(rng: np.random.Generator, locale: str, row: int) -> str:
    if row < len(NASTY):
        return NASTY[row]
    words = _WORDS.get(locale, _WORDS["us"]).split()
    return " ".join(rng.choice(words, rng.integers(1, 7)))


def _values(
    rng: np.random.Generator, measures: tuple[str, ...], queries: int, systems: Sequence[str]
) -> dict[str, dict[str, np.ndarray[Any, np.dtype[np.float64]]]]:
    """Return values in [0, 1] by system and measure, [queries]; the second query has no MRR.

    Other engines have no measure of the pool.
    """
    hard = rng.normal(0, 0.25, queries)
    values = {}
    for system in systems:
        values[system] = {
            measure: (_GOOD.get(system, 0.6) + 0.05 * place + hard + rng.normal(0, 0.1, queries))
            .clip(0, 1)
            .round(5)
            for place, measure in enumerate(measures)
            if system in SHOWN or not measure.startswith("pool_")
        }
        values[system][measures[1]][1:2] = np.nan
        recalls = [values[system][name] for name in measures if name.startswith("recall@")]
        for less, more in pairwise(recalls):
            np.maximum(less, more, out=more)
    return values


def _top(
    rng: np.random.Generator, locale: str, query_ids: list[int], systems: Sequence[str]
) -> dict[str, list[Any]]:
    """Return ten products of each query and system as columns; the last query of all has none."""
    columns: dict[str, list[Any]] = {name: [] for name in TOP.names}
    catalogue = [f"B{code:08d}" for code in range(5 * len(query_ids) + 20)]
    titles = [_text(rng, locale, row) + f" {row}" for row in range(len(catalogue))]
    for place, query_id in enumerate(query_ids[:-1]):
        judged = {5 * place + code: LABELS[code % 4] for code in range(12)}
        for system in systems:
            codes = rng.permutation(np.arange(5 * place, 5 * place + 20))[:10].tolist()
            for rank, code in enumerate(codes, start=1):
                row = (query_id, system, rank, catalogue[code], judged.get(code), titles[code])
                for name, value in zip(TOP.names, row, strict=True):
                    columns[name].append(value)
    return columns


def _write_numbers(
    given: Params, locale: str, values: Any, measures: tuple[str, ...], queries: int
) -> None:
    means = {
        system: {name: round(float(np.nanmean(each)), 5) for name, each in of_system.items()}
        for system, of_system in values.items()
    }
    counts: dict[str, Any] = {
        "encoder": given.encoder[locale],
        "index": given.index[locale],
        INDEX_SETTINGS: index_settings(of_index(given.index[locale], given.index_of(locale))),
        "queries": queries,
        "products": 5 * queries + 20,
    }
    if named := given.systems[locale]:
        counts["systems"] = {name: _counted(path) for name, path in named.items()}
    files.write_json(layout.metrics(locale), {**means, **counts})
    intervals: Any = {
        system: {
            name: _estimate(each) | {"queries": int((~np.isnan(each)).sum())}
            for name, each in of_system.items()
            if not np.isnan(each).all()
        }
        for system, of_system in values.items()
    }
    files.write_json(layout.intervals(locale), intervals)
    layout.recall_curve(locale).parent.mkdir(parents=True, exist_ok=True)
    plots.write_recall(layout.recall_curve(locale), {s: _curve(each) for s, each in means.items()})


def _counted(path: str) -> dict[str, Any]:
    return {
        "path": path, "sha256": "0" * 64, "results": 1234, "results_cut": 5, "results_tied": 6,
        "queries_without_results": 7, "queries_against_rank": 8, "depth": 50,
    }  # fmt: skip


def _curve(means: dict[str, float]) -> dict[str, float]:
    """Return a recall curve through the recalls among some means."""
    known = {int(name[7:]): mean for name, mean in means.items() if name.startswith("recall@")}
    every = sorted({1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, *known})
    drawn = np.interp(np.log(every), np.log(sorted(known)), sorted(known.values()))
    return {str(k): round(float(recall), 5) for k, recall in zip(every, drawn, strict=True)}


def _estimate(values: Any) -> dict[str, float]:
    known = values[~np.isnan(values)]
    mean, error = float(known.mean()), float(known.std() / max(len(known), 1) ** 0.5)
    return {
        "mean": round(mean, 5),
        "low": round(max(mean - 2 * error, 0.0), 5),
        "high": round(min(mean + 2 * error, 1.0), 5),
    }


def _write_tables(
    locale: str, query_ids: list[int], texts: list[str], values: Any, top: dict[str, list[Any]]
) -> None:
    columns = {
        f"{system}.{name}": pa.array(values[system][name], pa.float32(), from_pandas=True)
        for system in values
        if system != RANDOM
        for name in values[system]
    }
    labels = {f"{system}.labels": ["EES?I"] * len(texts) for system in values if system != RANDOM}
    for path, table in (
        (layout.per_query(locale),
         pa.table({"query_id": query_ids, "query": texts, **columns, **labels})),
        (layout.top(locale), pa.table(top, TOP)),
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **tables.WRITE_OPTIONS)


def _write_exact(
    rng: np.random.Generator, locale: str, query_ids: list[int], top: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """Write, and return, where each system ranks the three Exact products of a query."""
    first = {
        (query_id, product_id, system): rank
        for query_id, system, rank, product_id in zip(
            *(top[name] for name in ("query_id", "system", "rank", "product_id")), strict=True
        )
    }
    titles = dict(zip(top["product_id"], top["title"], strict=True))
    systems = list(dict.fromkeys(top["system"])) or list(SYSTEMS)
    rows = []
    for place, query_id in enumerate(query_ids):
        for name in (f"B{5 * place + code:08d}" for code in (0, 4, 8)):
            row: dict[str, Any] = {"query_id": query_id, "product_id": name}
            row["title"] = titles.get(name, f"never found {name}")
            for system in systems:
                further = int(rng.integers(11, 100)) if rng.random() < 0.5 else None
                row[system] = first.get((query_id, name, system), further)
            rows.append(row)
    rows[-1] |= {**dict.fromkeys(["title", *systems]), "product_id": WITHOUT_TEXT}
    schema = pa.schema([*exact_ranks.IDS, *(pa.field(s, exact_ranks.RANK) for s in systems)])
    layout.exact(locale).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), layout.exact(locale), **tables.WRITE_OPTIONS)
    return rows


def seal(locale: str) -> None:
    """Write the card of the table by query anew, after a change of it or of the first products."""
    path, (ids, judgements, _) = layout.per_query(locale), read_judgements(locale)
    rows = pq.read_table(path).replace_schema_metadata()
    of = per_query.Sample(
        locale=locale,
        products=len(ids.products),
        queries=len(rows),
        depth=100,
        product_ids_sha256=tables.ids_sha256(ids.products),
        query_ids_sha256=tables.ids_sha256(ids.queries),
        judgements_sha256=per_query.judgements_sha256(judgements),
    )
    beside = per_query.Beside(
        pq.read_table(layout.top(locale)),
        pq.read_table(layout.exact(locale)),
        *(json.loads(of(locale).read_text("utf-8")) for of in (layout.intervals, layout.slices)),
    )
    chosen = json.loads(layout.metrics(locale).read_text("utf-8"))
    vectors = read_model(layout.embeddings(locale).manifest, Manifest, "").vectors_sha256()
    card = per_query.with_card(rows, of, chosen["encoder"], chosen["index"], beside, **vectors)
    per_query.write(path, card)


def _write_slices(
    rng: np.random.Generator,
    given: Params,
    locale: str,
    values: Any,
    top: Any,
    query_ids: list[int],
) -> None:
    measure, queries = given.evaluate.headline()[0], len(query_ids)
    groups = {
        "query length": ("1 word", "2-3 words", "4 or more words"),
        "exact products": ("none", "1", "2-4", "5 or more"),
        "numbers in the query": ("yes", "no"),
        "brand in the query": ("yes", "no"),
        "script mix": ("kanji+hiragana+katakana", "kanji+hiragana+katakana+latin"),
    }
    slices, kinds = [], {}
    for group, names in groups.items():
        taken = [name for name in names if name != "none"]
        kinds[group] = rng.choice(taken, queries, p=rng.dirichlet(np.ones(len(taken)))).tolist()
        for name in names:
            rows = np.flatnonzero(np.array(kinds[group]) == name)
            nothing = {"mean": None, "low": None, "high": None}
            slices.append({
                "slice": group, "value": name, "queries": len(rows), "small": len(rows) < 30,
                "systems": {
                    system: _estimate(values[system][measure][rows]) if len(rows) else nothing
                    for system in values
                },
            })  # fmt: skip
    layout.kinds(locale).parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"query_id": query_ids, **kinds})
    pq.write_table(table, layout.kinds(locale), **tables.WRITE_OPTIONS)
    shares: dict[str, dict[str, float]] = {}
    for system in values:
        if system == RANDOM:
            continue
        labels = [
            label or UNJUDGED
            for of, label in zip(top["system"], top["label"], strict=True)
            if of == system
        ]
        shares[system] = {
            label: round(labels.count(label) / max(len(labels), 1), 5)
            for label in (*LABELS, UNJUDGED)
        }
    write_slices(locale, shares, slices, measure)


def write_slices(
    locale: str, shares: Any, slices: list[dict[str, Any]], measure: str = "ndcg@10"
) -> None:
    """Write a locale's slices and label shares."""
    content = {"measure": measure, "small_below": 30, "top10": shares, "slices": slices}
    files.write_json(layout.slices(locale), content)


def _write_clean(given: Params, locale: str, query_ids: list[int]) -> None:
    """Write the tables of clean: 12 judgements for each query."""
    products = [f"B{code:08d}" for code in range(5 * len(query_ids) + 20)]
    fields = len(given.clean.fields)
    judged = [
        (query_id, products[5 * place + code], LABELS[code % 4])
        for place, query_id in enumerate(query_ids)
        for code in range(12)
    ]
    judged[-4] = (query_ids[-1], WITHOUT_TEXT, "E")
    for path, columns, schema in (
        (layout.clean(locale).queries,
         {"query_id": query_ids, "text": [f"query {one}" for one in query_ids]}, tables.QUERIES),
        (layout.clean(locale).products,
         {"product_id": products, "text": [f"product {one}" for one in products],
          "field_ends": [[9] * fields] * len(products)}, tables.PRODUCTS),
        (layout.clean(locale).judgements,
         dict(zip(tables.JUDGEMENTS.names, zip(*judged, strict=True), strict=True)),
         tables.JUDGEMENTS),
    ):  # fmt: skip
        tables.write_table(path, pa.table(columns, schema), schema)


def _write_inputs(given: Params, locale: str, queries: int) -> Manifest:
    """Write the counts of clean and the manifest of embed; return the manifest."""
    products = 5 * queries + 20
    files.write_json(
        layout.clean(locale).counts,
        {
            "queries": {"in": queries + 2, "out": queries, "dropped_empty": 2,
                        "dropped_without_judgement": 0},
            "products": {"in": products + 8, "out": products, "dropped_empty": 8,
                         **given.clean.model_dump(mode="json"), "sharing_a_text": 4},
            "judgements": {"in": 12 * queries + 21, "out": 12 * queries, "dropped_repeated": 4,
                           "dropped_query_empty": 17, "dropped_product_missing": 0},
        },
    )  # fmt: skip

    ids, _, _ = read_judgements(locale)

    def side(of: pa.ChunkedArray, kind: str) -> Side:
        shard = Shard(file=f"{kind}-00000.npy", rows=len(of), sha256="1" * 64)
        return side_of(of, files.sha256_file(layout.clean(locale).side(kind)), (shard,))

    cut = SideCut(
        texts=products, tokens=90 * products, texts_cut=7, tokens_cut=300,
        fields={field: Cut(texts_cut=7 if last else 0, tokens_cut=300 if last else 0)
                for field in given.clean.fields for last in [field == given.clean.fields[-1]]},
    )  # fmt: skip
    manifest = Manifest(
        manifest_schema=MANIFEST_SCHEMA,
        locale=locale,
        encoder=given.encoder[locale],
        contract=contract_of(given.encoder_of(locale)),
        weights_sha256="3" * 64,
        engine="torch-cpu",
        dimension=384,
        dtype=given.embed.dtype,
        truncation=Truncation(products=cut, queries=nothing_cut(queries, ["query"])),
        products=side(ids.products, "products"),
        queries=side(ids.queries, "queries"),
    )
    files.write_json(layout.embeddings(locale).manifest, manifest.model_dump(mode="json"))
    return manifest


def write_tradeoff(
    rng: np.random.Generator, given: Params, locale: str, manifest: Manifest, **changed: Any
) -> Path:
    """Write measurements of four indexes on the vectors of a manifest; return where."""
    indexes = [
        {
            "index": name, "kind": name, "settings": given.indexes[name], "mapped": name != "hnsw",
            "overlap@10": overlap**0.5, "overlap@100": overlap,
            "ndcg@10": 0.6 * overlap, "recall@100": 0.9 * overlap, "bytes_per_vector": size,
            "build_seconds": 0.01 * size, "p50_milliseconds": slow * rng.uniform(0.9, 1.1),
            "p95_milliseconds": 2.1 * slow, "queries_per_second": 2000 / slow,
        }
        for name, overlap, size, slow in (
            ("flat", 1.0, 1536.1, 0.9), ("sq8", 0.993, 384.0, 0.85), ("hnsw", 0.998, 1800.0, 0.12),
            ("ivf-flat", 0.94, 1544.0, 0.31),
        )
    ]  # fmt: skip
    content = TradeOff.model_validate(
        {
            "tradeoff_schema": 3,
            "locale": locale,
            "encoder": manifest.encoder,
            "similarity": given.encoder_of(locale).similarity,
            "weights_sha256": manifest.weights_sha256,
            "product_ids_sha256": manifest.products.ids_sha256,
            "product_vectors_sha256": manifest.products.sha256(),
            "query_vectors_sha256": manifest.queries.sha256(),
            "judgements_sha256": hash_judgements(read_judgements(locale)[2]),
            "products": manifest.products.rows,
            "queries": manifest.queries.rows,
            "overlap_queries": manifest.queries.rows,
            "timed_queries": manifest.queries.rows,
            "threads": 1,
            "cpu_model": "a CPU",
            "faiss_version": "1.15.1",
            "indexes": tuple(indexes),
            "left_out": {"ivf-pq": "256 products at least are needed to train on"},
            **changed,
        }
    )
    files.write_json(layout.tradeoff(locale), content.model_dump(mode="json", by_alias=True))
    return layout.tradeoff(locale)
