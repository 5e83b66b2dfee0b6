"""JavaScript libraries of pages: fetched by npm, pinned by the hash of the package."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files, layout
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.log import log

SECONDS = 600


@dataclass(frozen=True)
class Package:
    """A package of npm, and what the page needs of it.

    Attributes:
        name: its name and version, as `npm pack` takes them.
        integrity: the SHA-512 of its archive in base64, as npm shows it after `sha512-`.
        taken: the name in our folder by the path in the archive. Modules end in .js: many servers
            do not know .mjs.
    """

    name: str
    integrity: str
    taken: Mapping[str, str]


PACKAGES = (
    Package(
        "onnxruntime-web@1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "package/dist/ort.wasm.bundle.min.mjs": "vendor/onnxruntime.js",
            "package/dist/ort-wasm-simd-threaded.wasm": "vendor/onnxruntime.wasm",
        },
    ),
    Package(
        "@huggingface/tokenizers@0.2.0",
        "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
        {
            "package/dist/tokenizers.min.mjs": "vendor/tokenizers.js",
            "package/LICENSE": "licences/tokenizers.txt",
        },
    ),
)
"""What runs the model (MIT) and what makes its tokens (Apache-2.0). Neither has dependencies here:
the bundle of onnxruntime-web holds its own."""


def vendor(packages: tuple[Package, ...], folder: Path) -> None:
    """Write what is taken of each package into a folder.

    Raises:
        PipelineError: npm is missing or cannot fetch a package, or what it fetches is another one.
    """
    for package in packages:
        for name, content in read_taken(package):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def read_taken(package: Package) -> Iterator[tuple[str, bytes]]:
    """Yield what is taken of a package: its name here, and its bytes; raises as `vendor`."""
    with tarfile.open(fetch(package)) as archive:
        for member, name in package.taken.items():
            taken = archive.extractfile(member)
            assert taken is not None, member  # the hash pins what is in it
            yield name, taken.read()


def fetch(package: Package) -> Path:
    """Return the archive of a package in the cache, fetched if it is not there; as `vendor`."""
    held = layout.cache() / "npm" / f"{package.name.replace('/', '-')}.tgz"
    if held.is_file() and integrity(held) == package.integrity:
        return held
    npm = shutil.which("npm")
    if npm is None:
        raise PipelineError(
            f"npm is not on the PATH, and the page needs {package.name}. Install Node.js 20 or "
            "later, which brings npm, and run it again."
        )
    log.info("fetching %s with npm, once", package.name)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package.name, "--ignore-scripts", "--silent"]
        try:
            ran = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as err:
            raise PipelineError(
                f"npm did not fetch {package.name} in {SECONDS} s. Check the connection."
            ) from err
        archives = list(Path(folder).glob("*.tgz"))
        if ran.returncode or len(archives) != 1:
            said = one_line(Exception(ran.stderr))[-300:]
            raise PipelineError(
                f"npm cannot fetch {package.name} ({said or 'it says nothing'}). Check the "
                "connection and npm's settings."
            )
        if (found := integrity(archives[0])) != package.integrity:
            raise PipelineError(
                f"{package.name} must have the hash sha512-{package.integrity[:12]} (found "
                f"sha512-{found[:12]}): npm's registry sends another package. Use one that sends "
                "the original."
            )
        with files.atomic_file(held) as partial:
            shutil.copyfile(archives[0], partial)
    return held


def integrity(path: Path) -> str:
    """Return the SHA-512 of a file in base64, as npm writes it."""
    with path.open("rb") as handle:
        return base64.b64encode(hashlib.file_digest(handle, "sha512").digest()).decode()
