"""How much of a locale's texts `embed` will encode, and how fast; no model is fetched or loaded.

If the clean tables are up to date, the store is asked which of their texts have vectors, as
`python -m pipeline.embed --plan` does; otherwise none is taken to have one.
"""

from contextlib import suppress
from dataclasses import dataclass

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json
from pipeline.core.params import Params
from pipeline.embed.fill import SideEncoder
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.sides import sides
from pipeline.encoders.weights import at_hand
from pipeline.plan.rates import CHARACTERS_PER_SECOND
from pipeline.plan.sizes import Size
from pipeline.vectors.manifest import read_manifest

ASSUMED_DIMENSION = 768
"""What an unknown encoder's vectors have; most have no more."""

CHARACTERS_PER_QUERY = 24  # about, in ESCI
_CHARACTERS_PER_TOKEN, _CHARACTERS_PER_TEXT = 4, 16  # as `embed` counts its work


@dataclass(frozen=True)
class Encoded:
    """What `embed` will do for a locale: texts, those to encode, what these cost, and how long.

    `characters` are counted as `embed` counts its work; `known` says how speed and reuse are known.
    """

    products: int
    queries: int
    encoded: int
    characters: int
    seconds: float
    dimension: int
    known: str


def foresee(params: Params, locale: str, size: Size, *, cleaned: bool) -> Encoded:
    """Return what `embed` will do for a sample of this size.

    Args:
        params: the choices.
        locale: one of theirs.
        size: of its sample.
        cleaned: whether its clean tables are up to date.

    Raises:
        PipelineError: the encoder's weights are on this machine and cannot be used.
    """
    spec = params.encoder_of(locale)
    encoder = LocaleEncoder(params, locale, convert=False) if at_hand(spec.weights) else None
    encoders = [
        encoder and SideEncoder(encoder, side) for side in sides(locale, params.clean.fields)
    ]
    dimension = _dimension(params, locale, [one.dimension for one in encoders if one])
    counts = _cleaned(locale) if cleaned else (size.products, size.queries)
    if cleaned and None not in encoders:
        plans = [one.survey() for one in encoders if one]
        encoded, work = sum(plan.to_encode for plan in plans), [plan.work for plan in plans]
        reuse = f"{sum(plan.reused for plan in plans):,} vectors stored"
    else:
        read = spec.max_tokens * _CHARACTERS_PER_TOKEN
        lengths = size.lengths.clip(max=read)
        a_product = _CHARACTERS_PER_TEXT + float(lengths.mean())
        a_query = _CHARACTERS_PER_TEXT + min(CHARACTERS_PER_QUERY, read)
        encoded, work = counts[0] + counts[1], [round(counts[0] * a_product), counts[1] * a_query]
        reuse = "no vector stored"
    rates = [
        (one.seconds(1_000_000) if one else None) or 1_000_000 / CHARACTERS_PER_SECOND
        for one in encoders
    ]
    return Encoded(
        *counts, encoded, sum(work),
        sum(part / 1_000_000 * rate for part, rate in zip(work, rates, strict=True)),
        dimension,
        f"{_rate_known([one for one in encoders if one])}, {reuse}",
    )  # fmt: skip


def _rate_known(encoders: list[SideEncoder]) -> str:
    rates = [rate for one in encoders if (rate := one.rate())]
    if not rates:
        return "default rate"
    others = sorted({rate.threads for rate in rates} - {one.encoder.threads for one in encoders})
    return "rate measured here" + "".join(f", scaled from {n} threads" for n in others)


def _cleaned(locale: str) -> tuple[int, int]:
    """Return how many products and queries the clean tables hold."""
    counts = read_json(layout.clean(locale).counts, layout.rerun_hint("clean", locale))
    return counts["products"]["out"], counts["queries"]["out"]


def _dimension(params: Params, locale: str, stored: list[int]) -> int:
    own = params.encoder_of(locale).dimension
    if own != "model":
        return own
    if any(stored):
        return max(stored)
    with suppress(PipelineError):
        return read_manifest(params, locale).dimension
    return ASSUMED_DIMENSION
