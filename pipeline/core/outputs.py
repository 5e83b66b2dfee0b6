"""Where stages and commands may write: not over their inputs, nor over what others have written."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import takes_a_stream


def refuse_overlap(inputs: Iterable[Path], output: Path) -> None:
    """Check that no input is inside the output that a stage replaces, and that none contains it.

    Links are followed on both sides; the path as it is written counts too, since a link within
    `output` goes with it.

    Args:
        inputs: files and folders that the stage reads; they need not exist.
        output: the folder or file that it replaces.

    Raises:
        PipelineError: an input and the output overlap.
    """
    for each in inputs:
        if _is_within(each, output):
            raise PipelineError(
                f"{each} is in {output}, which this stage replaces: it would be deleted. Move it "
                "elsewhere, and change its path in params.yaml."
            )
        if _is_within(output, each):
            raise PipelineError(
                f"{each} contains {output}, which this stage replaces. Move the input to a folder "
                "of its own, and change its path in params.yaml."
            )


def refuse_artefacts(
    given: Mapping[str, Path | None],
    *,
    folders: bool = False,
    replaced: bool = False,
) -> None:
    """Check that a command may write the files that its arguments name.

    Links are followed, as in `refuse_overlap`.

    Args:
        given: the path that each option names, None where it is left out.
        folders: whether the options name folders to write to, which may be there already.
        replaced: whether such a folder is replaced as a whole.

    Raises:
        PipelineError: a path is one of the artefacts or in one, two options name one file, or a
            folder that is replaced has the place of an artefact in it.
    """
    named = {option: path for option, path in given.items() if path is not None}
    artefacts = layout.artefacts()
    for option, path in named.items():
        for artefact in artefacts:
            if _is_within(path, artefact):
                raise PipelineError(
                    f"{option} {path}: must not be an artefact of the project (it is {artefact} or "
                    "inside it). Name another path."
                )
            if replaced and _is_within(artefact, path):
                raise PipelineError(
                    f"{option} {path}: must not contain {artefact}, an artefact of the project: "
                    "the folder is replaced as a whole. Name another path."
                )
        if not folders and takes_a_stream(path):
            continue
        for other, before in named.items():
            if other == option:
                break
            if _is_within(path, before):
                raise PipelineError(f"{option} {path}: {other} names it too. Name two paths.")


def refuse_to_lose(out: Path, own: Container[str] = ()) -> None:
    """Check that a folder which a command replaces as a whole holds nothing of anybody else.

    Args:
        out: the folder that --out names; it need not exist.
        own: the files that the command wrote there, by their paths in the folder.

    Raises:
        PipelineError: it is a file, or holds another file or link.
    """
    advice = "Name a folder that is absent or empty"
    if not out.exists():
        return
    if not out.is_dir():
        raise PipelineError(f"--out {out} is a file. {advice}.")
    for name in iter_names(out):
        if name not in own:
            raise PipelineError(
                f"--out {out}: the folder would be replaced, and {name} in it would be lost. "
                f"{advice}, or move its files away."
            )


def iter_names(folder: Path, within: str = "") -> Iterator[str]:
    """Yield the files and links in a folder and its folders, by their names from there, sorted."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from iter_names(path, f"{within}{path.name}/")
        else:
            yield f"{within}{path.name}"


def _is_within(inner: Path, outer: Path) -> bool:
    """Return whether `inner` is `outer` or in it, as written or after links are followed."""
    if "\0" in f"{inner}{outer}":  # not a path
        return False
    for resolve in (os.path.abspath, os.path.realpath):
        place, other = Path(resolve(inner)), Path(resolve(outer))
        for above in (place, *place.parents):
            if above == other:
                return True
            with suppress(OSError):  # one of them does not exist
                if above.samefile(other):
                    return True
    return False
