"""How sample, clean and embed are measured at scale; clean beside plain programs of its kind.

embed is measured with a random model of two layers and 32 components: encoding 1.8 million products
with a real one takes hours, and is `make bench`'s to measure; all else that embed does is here.
"""

import html
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import cheap_model
from bench.measure import Figures, Measure, run_locales
from pipeline.clean.products import BATCH_ROWS
from pipeline.clean.stage import clean
from pipeline.core import layout, tables
from pipeline.core.params_file import load_params
from pipeline.sample.stage import sample
from pipeline.text.normalise import join_fields

_PLAIN = Path("plain.parquet")
_PLAIN_SCHEMA = pa.schema([tables.PRODUCTS.field("product_id"), tables.PRODUCTS.field("text")])
_TAG = re.compile(r"<[^>]+>")


def measure_sample(products: int) -> Figures:
    """Sample the whole source."""
    sample(load_params())
    return {}


def need_sample(products: int) -> None:
    """Sample the source, if that is not done."""
    if not layout.SAMPLE.exists():
        sample(load_params())


def measure_clean(products: int) -> Figures:
    """Clean all locales, one after the other."""
    run_locales(clean)
    return {}


def need_clean(products: int) -> None:
    """Sample and clean, as far as that is not done."""
    need_sample(products)
    params = load_params()
    for locale in params.locales:
        if not layout.clean(locale).folder.exists():
            clean(params, locale)


def measure_loops(products: int) -> Figures:
    """Time plain Python programs that read, clean and write the products, one after the other.

    `one_by_one` writes the texts that clean writes, by `text.join_fields`. `four_steps` does the
    least that one would: strip what is between < and >, unescape once, NFKC, single spaces.
    """
    params = load_params()
    separator = params.clean.separator
    loops: dict[str, Callable[[Iterable[str | None]], str]] = {
        "four_steps": lambda fields: separator.join(filter(None, map(_four_steps, fields))),
        "one_by_one": lambda fields: join_fields(fields, separator)[0],
    }
    rates = {}
    for name, loop in loops.items():
        started = time.monotonic()
        for locale in params.locales:
            _clean_plainly(layout.sample(locale).products, params.clean.fields, loop)
        rates[name] = products / (time.monotonic() - started)
    _PLAIN.unlink()
    return {"per_second": rates}


def _clean_plainly(
    source: Path, fields: Sequence[str], loop: Callable[[Iterable[str | None]], str]
) -> None:
    with pq.ParquetWriter(_PLAIN, _PLAIN_SCHEMA, **tables.WRITE_OPTIONS) as writer:
        for batch in tables.iter_table(source, tables.SAMPLE_PRODUCTS, BATCH_ROWS, ""):
            rows = zip(*(batch[field].to_pylist() for field in fields), strict=True)
            texts = [loop(row) for row in rows]
            writer.write_table(pa.table([batch["product_id"], texts], _PLAIN_SCHEMA))


def _four_steps(text: str | None) -> str:
    if not text:
        return ""
    return " ".join(unicodedata.normalize("NFKC", html.unescape(_TAG.sub(" ", text))).split())


def measure_embed(products: int) -> Figures:
    """Encode all locales, one after the other."""
    # Here, lest all that it imports count as the memory of every stage.
    from pipeline.embed.stage import embed

    run_locales(embed)
    return {"encoder": f"random, {cheap_model.DIMENSION} components"}


def forget_embed(products: int) -> None:
    """Clean and convert the model, as far as that is not done; remove all vectors."""
    from pipeline.encoders.loading import load_encoder
    from pipeline.encoders.weights import resolve_weights

    need_clean(products)
    params = load_params()
    for locale in params.locales:
        spec, name = params.encoder_of(locale), params.encoder[locale]
        load_encoder(spec, resolve_weights(spec, name), params.runtime)
        shutil.rmtree(layout.embeddings(locale).folder, ignore_errors=True)
    shutil.rmtree(layout.store(), ignore_errors=True)


def need_embed(products: int) -> None:
    """Clean and encode, as far as that is not done."""
    need_clean(products)
    params = load_params()
    if not all(layout.embeddings(locale).folder.exists() for locale in params.locales):
        measure_embed(products)


def forget_sample(products: int) -> None:
    """Remove what sample wrote."""
    shutil.rmtree(layout.SAMPLE, ignore_errors=True)


MEASURES = {
    "sample": Measure(measure_sample, forget_sample),
    "clean": Measure(measure_clean, need_sample, measure_loops),
    "embed (tiny model)": Measure(measure_embed, forget_embed),
}
