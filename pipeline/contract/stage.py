"""Write an entry of `encoders` or `rerankers` to models/<kind>/<name>/contract.json."""

from pipeline.core import layout
from pipeline.core.contract import write_contract
from pipeline.core.files import atomic_directory
from pipeline.core.params import Params


def contract(params: Params, name: str) -> None:
    """Write what a name means. The weights stay where the entry says they are."""
    kind = "encoder" if name in params.encoders else "reranker"
    entry = params.encoders[name] if kind == "encoder" else params.rerankers[name]
    with atomic_directory(layout.model(kind, name).folder) as folder:
        write_contract(layout.ModelFiles(folder).contract, entry)
