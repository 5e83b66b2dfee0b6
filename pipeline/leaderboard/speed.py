"""What a revision says of speed and size: the reports of `make bench` and `make tradeoff` in Git.

Both are measured by hand, so they may be missing, or of other choices than the numbers are.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from pipeline.compare.loose_json import number_at, parse, value_at
from pipeline.evaluate.per_query import Card


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
    card: Card,
    network: tuple[str, str],
    settings: Mapping[str, str],
) -> Speed:
    """Return what two reports say of an encoder and an index; a damaged report says nothing.

    A latency depends on how many products are searched, on their vectors, which may be cut to other
    dimensions under one name, and on the index's settings, such as ef_search. So it counts only for
    the same ones.

    Args:
        bench: reports/bench/encode.json of the revision, if it has one.
        tradeoff: reports/tradeoff/<locale>.json of it, if it has one.
        card: of the revision's numbers.
        network: what `network_of` returns for the encoder.
        settings: those of the revision, as they are written.
    """
    name, precision = network
    side = value_at(parse(bench), "encoders", name, "sides", f"openvino cpu {precision}")
    measured = parse(tradeoff)
    of = {
        "encoder": card.encoder,
        "product_ids_sha256": card.sample.product_ids_sha256,
        **card.vectors_sha256(),
    }
    fits = all(value_at(measured, key) == value for key, value in of.items())
    listed = _list(value_at(measured, "indexes")) if fits else []
    of_index = next((each for each in listed if value_at(each, "index") == card.index), None)
    if value_at(of_index, "settings") != _written(settings, card.index):
        of_index = None
    return Speed(
        number_at(side, "tokens_per_second"),
        number_at(of_index, "bytes_per_vector"),
        number_at(of_index, "p50_milliseconds"),
    )


TIMED = {"tokens_per_second": "tokens/s", "p50_milliseconds": "p50 ms"}
"""The figures of `Speed` that are of one machine, and their columns."""


def read_machines(bench: bytes | None, tradeoff: bytes | None) -> dict[str, str]:
    """Return what each figure of `TIMED` was measured on and by, as the two reports say.

    Figures of other texts are not to be compared.
    """
    read, searched = parse(bench), parse(tradeoff)
    machine = value_at(read, "machine")
    return {
        "tokens_per_second": (
            f"{value_at(machine, 'cpu_model')}, {value_at(machine, 'cores')} cores, "
            f"OpenVINO {value_at(machine, 'versions', 'openvino')}"
        ),
        "p50_milliseconds": (
            f"{value_at(searched, 'cpu_model')}, FAISS {value_at(searched, 'faiss_version')}, "
            f"tradeoff_schema {value_at(searched, 'tradeoff_schema')}"
        ),
    }


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
