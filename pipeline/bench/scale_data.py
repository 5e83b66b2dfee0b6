"""How sample and clean are measured at scale; clean beside plain Python loops over the texts."""

import html
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable

from pipeline import layout, tables
from pipeline.bench.measure import Figures, Measure
from pipeline.clean import BATCH_ROWS, clean
from pipeline.params import load_params
from pipeline.sample import sample
from pipeline.text import join_fields

LOOKED_AT = 5
"""The loops take one batch of so many, since they need minutes for all."""

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
    params = load_params()
    for locale in params.locales:
        clean(params, locale)
    return {}


def need_clean(products: int) -> None:
    """Sample and clean, as far as that is not done."""
    need_sample(products)
    params = load_params()
    for locale in params.locales:
        if not layout.clean(locale).exists():
            clean(params, locale)


def measure_loops(products: int) -> Figures:
    """Time plain Python loops over the products' texts, on one core, nothing read or written.

    `one_by_one` gives the texts that clean gives, by `text.join_fields`. `four_steps` does the
    least that one would: strip what is between < and >, unescape once, NFKC, single spaces.
    """
    params = load_params()
    separator = params.clean.separator
    loops: dict[str, Callable[[Iterable[str | None]], object]] = {
        "four_steps": lambda fields: separator.join(filter(None, map(_four_steps, fields))),
        "one_by_one": lambda fields: join_fields(fields, separator),
    }
    seconds = dict.fromkeys(loops, 0.0)
    rows = 0
    for locale in params.locales:
        path = layout.sample(locale) / "products.parquet"
        batches = tables.iter_table(path, tables.SAMPLE_PRODUCTS, BATCH_ROWS, "")
        for number, batch in enumerate(batches):
            if number % LOOKED_AT:
                continue
            columns = [batch[field].to_pylist() for field in params.clean.fields]
            rows += len(batch)
            for name, loop in loops.items():
                started = time.monotonic()
                for fields in zip(*columns, strict=True):
                    loop(fields)
                seconds[name] += time.monotonic() - started
    return {"per_second": {name: rows / seconds[name] for name in loops}}


def _four_steps(text: str | None) -> str:
    if not text:
        return ""
    return " ".join(unicodedata.normalize("NFKC", html.unescape(_TAG.sub(" ", text))).split())


def forget_sample(products: int) -> None:
    """Remove what sample wrote."""
    shutil.rmtree(layout.SAMPLE, ignore_errors=True)


MEASURES = {
    "sample": Measure(measure_sample, forget_sample),
    "clean": Measure(measure_clean, need_sample, measure_loops),
}
