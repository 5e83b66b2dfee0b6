"""Write an entry of `encoders` to models/encoder/<name>/contract.json."""

from pipeline.core import layout
from pipeline.core.contract import write_contract
from pipeline.core.files import atomic_directory
from pipeline.core.params import Params


def contract(params: Params, name: str) -> None:
    """Write what an encoder's name means. The weights stay where the entry says they are."""
    with atomic_directory(layout.model("encoder", name).folder) as folder:
        write_contract(layout.ModelFiles(folder).contract, params.encoders[name])
