"""What `embed` takes for a locale; no model is fetched or loaded, and no text is read."""

from collections.abc import Callable

from pipeline.core.params import Params
from pipeline.embed.fill import SideEncoder
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.sides import sides
from pipeline.encoders.tokens import CHARACTERS_PER_TEXT, CHARACTERS_PER_TOKEN
from pipeline.encoders.weights import at_hand
from pipeline.plan.costs import Row, default_cost
from pipeline.plan.rates import CHARACTERS_PER_SECOND
from pipeline.plan.sizes import Size

ASSUMED_DIMENSION = 768
"""What an unknown encoder's vectors have; most have no more."""

_CHARACTERS_PER_QUERY = 24  # about, in ESCI


def embed_row(params: Params, locale: str, size: Size, row: Callable[..., Row]) -> Row:
    """Return the row of embed if no text has a vector yet; `row` is `costs.row` of the records.

    Raises:
        PipelineError: the encoder's weights are on this machine and cannot be used.
    """
    spec, texts = params.encoder_of(locale), size.products + size.queries
    length = min(size.characters, spec.max_tokens * CHARACTERS_PER_TOKEN)
    read = size.products * length + size.queries * _CHARACTERS_PER_QUERY
    units = {"products": size.products, "queries": size.queries, "encoded": texts}
    units["characters"] = read + texts * CHARACTERS_PER_TEXT
    units["dimension"] = ASSUMED_DIMENSION if spec.dimension == "model" else spec.dimension
    encoding, known = units["characters"] / CHARACTERS_PER_SECOND, "default rate"
    if at_hand(spec.weights):
        encoder = LocaleEncoder(params, locale, convert=False)
        # The products are nearly all that there is to encode.
        products = SideEncoder(encoder, sides(locale, params.clean.fields)[0])
        units["dimension"] = products.dimension or units["dimension"]
        if rate := products.rate():
            encoding = rate.seconds(units["characters"], encoder.threads)
            known = "rate measured here"
            if rate.threads != encoder.threads:
                known += f", scaled from {rate.threads} thread{'s' * (rate.threads != 1)}"
    found = row("embed", locale, units)
    rest = default_cost("embed", None, {**units, "characters": 0})
    # The table has float32; stored vectors are that always.
    saved = 2 * units["dimension"] * texts * (params.embed.dtype == "float16")
    return found.model_copy(update={
        "seconds": rest.start_seconds + rest.work_seconds + encoding,
        "disk_bytes": found.disk_bytes - saved,
        "known": found.known if found.known.startswith("guess") else known,
    })  # fmt: skip
