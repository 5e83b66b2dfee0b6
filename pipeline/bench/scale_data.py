"""How sample and clean are measured at scale."""

import shutil

from pipeline import layout
from pipeline.bench.measure import Figures, Measure
from pipeline.clean import clean
from pipeline.params import load_params
from pipeline.sample import sample


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


def forget_sample(products: int) -> None:
    """Remove what sample wrote."""
    shutil.rmtree(layout.SAMPLE, ignore_errors=True)


MEASURES = {
    "sample": Measure(measure_sample, forget_sample),
    "clean": Measure(measure_clean, need_sample),
}
