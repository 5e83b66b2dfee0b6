"""What a revision says of speed and size: the reports of `make bench` and `make tradeoff` in Git.

Both are measured by hand, so they may be missing, or of other choices than the numbers are.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from pipeline.compare.loose_json import number_at, parse, value_at


@dataclass(frozen=True)
class Speed:
    """What was measured of an encoder and an index; None where it was not.

    Attributes:
        tokens_per_second: what the encoder reads on a CPU.
        bytes_per_vector: what the index holds.
        p50_milliseconds: the median latency of one query's search, without its encoding.
    """

    tokens_per_second: float | None = None
    bytes_per_vector: float | None = None
    p50_milliseconds: float | None = None

    def filled_by(self, other: "Speed") -> "Speed":
        """Return this, with the other's figures where this has none."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Speed(*(theirs if mine is None else mine for mine, theirs in pairs))


def read_speed(
    bench: bytes | None,
    tradeoff: bytes | None,
    encoder: str,
    index: str,
    network: tuple[str, str],
    product_ids_sha256: str,
    settings: Mapping[str, str],
) -> Speed:
    """Return what two reports say of an encoder and an index; a damaged report says nothing.

    A latency depends on how many products are searched, and on the index's settings, such as
    ef_search. So it counts only for the same ones.

    Args:
        bench: reports/bench/encode.json of the revision, if it has one.
        tradeoff: reports/tradeoff/<locale>.json of it, if it has one.
        encoder: the encoder's name.
        index: the index's name.
        network: what `network_of` returns for the encoder.
        product_ids_sha256: the products of the numbers.
        settings: those of the revision, as they are written.
    """
    name, precision = network
    side = value_at(parse(bench), "encoders", name, "sides", f"openvino cpu {precision}")
    measured = parse(tradeoff)
    of = value_at(measured, "encoder"), value_at(measured, "product_ids_sha256")
    listed = value_at(measured, "indexes") if of == (encoder, product_ids_sha256) else None
    of_index = next(
        (each for each in _list(listed) if value_at(each, "index") == index),
        None,
    )
    if value_at(of_index, "settings") != _written(settings, index):
        of_index = None
    return Speed(
        number_at(side, "tokens_per_second"),
        number_at(of_index, "bytes_per_vector"),
        number_at(of_index, "p50_milliseconds"),
    )


def _written(settings: Mapping[str, str], index: str) -> dict[str, Any]:
    """Return the entry of an index as `make tradeoff` writes it: without what is empty."""
    start = f"indexes.{index}."
    written = {
        key.removeprefix(start): value for key, value in settings.items() if key.startswith(start)
    }
    numbers = {key: int(value) for key, value in written.items() if value.isdecimal()}
    return {key: value for key, value in (written | numbers).items() if value != "null"}


def network_of(settings: Mapping[str, str], encoder: str) -> tuple[str, str]:
    """Return the encoder whose network an encoder has, and the precision in which it reads.

    `make bench` measures the entries under `encoders`. A trained encoder has the network of the one
    that it started from, and its precision unless it has its own.
    """
    precision, name, seen = "", encoder, set[str]()
    while name not in seen and (base := settings.get(f"trained.{name}.base")):
        seen.add(name)
        own = settings.get(f"trained.{name}.precision", "null")
        precision = precision or ("" if own == "null" else own)
        name = base
    return name, precision or settings.get(f"encoders.{name}.precision", "")


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []
