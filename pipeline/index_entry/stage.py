"""Write the settings of a locale's index: params.yaml -> models/index_entry/<locale>.

DVC can depend on a whole entry of `indexes` alone. So one file says how the index is built, and
another how it is searched: other `probes` search again, and build nothing. Each is an output of its
own: DVC compares an artefact that is not here with what made it only where both have one path.
"""

from pipeline.core import layout
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.params import Params, split_settings


def index_entry(params: Params, locale: str) -> None:
    """Write both files of a locale."""
    build, search = split_settings(params.index_of(locale))
    with atomic_directory(layout.index_entry(locale).folder) as folder:
        out = layout.IndexEntryFiles(folder)
        write_json(out.build, build)
        write_json(out.search, search)
