"""How much of a locale's texts is to be encoded, and at which rate; no model is fetched or loaded.

Where the clean tables are up to date, their texts are held against the store of vectors, as
`python -m pipeline.embed --plan` does; else nothing is taken to be there.
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
from pipeline.plan.costs import DEFAULT_CHARACTERS_A_SECOND, threads_told
from pipeline.plan.sizes import Size
from pipeline.vectors.manifest import read_manifest

ASSUMED_DIMENSION = 768
"""What an encoder's vectors have, while nothing on this machine tells; most have no more."""

CHARACTERS_A_QUERY = 24  # about, in ESCI
_CHARACTERS_A_TOKEN, _CHARACTERS_A_TEXT = 4, 16  # as `embed` and `encoding` reckon


@dataclass(frozen=True)
class Encoded:
    """What `embed` has to do for a locale.

    Attributes:
        products: rows of the clean table; at most, unless `counted`.
        queries: as the products.
        encoded: texts without a stored vector.
        characters: what they cost, as `fill.Survey.work` counts.
        seconds: how long encoding them takes.
        dimension: of the vectors.
        counted: whether all this is from the clean tables.
        known: how the rate and the reuse are known.
    """

    products: int
    queries: int
    encoded: int
    characters: int
    seconds: float
    dimension: int
    counted: bool
    known: str


def foresee(params: Params, locale: str, size: Size, *, cleaned: bool) -> Encoded:
    """Return what `embed` has to do for a sample of this size.

    Args:
        params: the choices.
        locale: one of theirs.
        size: of its sample.
        cleaned: whether its clean tables are those of this sample and these choices.

    Raises:
        PipelineError: the encoder's weights are on this machine, and cannot be used.
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
        read = spec.max_tokens * _CHARACTERS_A_TOKEN
        lengths = size.lengths.clip(max=read)
        a_product = _CHARACTERS_A_TEXT + float(lengths.mean())
        a_query = _CHARACTERS_A_TEXT + min(CHARACTERS_A_QUERY, read)
        encoded, work = counts[0] + counts[1], [round(counts[0] * a_product), counts[1] * a_query]
        reuse = "no vector taken to be stored"
    rates = [
        (one.seconds(1_000_000) if one else None) or 1_000_000 / DEFAULT_CHARACTERS_A_SECOND
        for one in encoders
    ]
    return Encoded(
        *counts, encoded, sum(work),
        sum(part / 1_000_000 * rate for part, rate in zip(work, rates, strict=True)),
        dimension, cleaned,
        f"{_rate_known([one for one in encoders if one])}, {reuse}",
    )  # fmt: skip


def _rate_known(encoders: list[SideEncoder]) -> str:
    rates = [rate for one in encoders if (rate := one.rate())]
    if not rates:
        return "default rate"
    others = sorted({rate.threads for rate in rates} - {one.encoder.threads for one in encoders})
    return "rate measured here" + "".join(f", scaled from {threads_told(n)}" for n in others)


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
