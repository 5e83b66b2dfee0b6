# ruff: noqa: S311 - damage needs no cryptography
"""Whatever happens to a file that compare reads: the same report, or one message."""

import contextlib
import copy
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.command import compare
from pipeline.compare.plain_data import as_json
from pipeline.compare.revision import Revision
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT, params
from tests.helpers.damage import cut, flip, to_circle, to_folder, to_pipe
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, **GIT_IDENTITY, "PATH": PATH}
FAST = {"uncertainty.samples": 200}
BEFORE = Path("../before")
"""A copy of the last commit, with the titles that Git lacks."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without DVC; its workspace has worse reports than its last commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    Path(".gitignore").write_text("/reports/top\n")
    for locale in ("us", "es", "jp"):
        comparisons.write_for(locale, {"us": "minilm"}.get(locale, "e5-small-q4"))
    commit_all(folder, ENVIRONMENT, "results")
    shutil.copytree(folder, BEFORE, ignore=shutil.ignore_patterns(".git"))
    comparisons.write_for("es", "minilm")
    return folder


def report(a: str = "before", b: str = "workspace") -> Any:
    """Compare; without the titles of a commit, for which compare would start DVC each time."""
    sides = Revision(a, BEFORE if a == "before" else None), Revision(b)
    return as_json(compare(params(FAST), *sides, queries=2, with_titles=a == "before"))


def outcome(a: str = "before", b: str = "workspace") -> Any:
    """Return the moves with their titles, or one message."""
    try:
        found = report(a, b)
    except PipelineError as err:
        return str(err)
    return found["moves"]


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(3_000))


def to_full_folder(path: Path) -> None:
    to_folder(path)
    (path / "x").write_text("x")  # Git keeps no empty one


def to_another(path: Path) -> None:
    path.write_bytes(Path(str(path).replace("es.", "jp.")).read_bytes())


Kind = Callable[..., Any]
OF_BYTES: tuple[Kind, ...] = (cut, flip, flip, flip, noise)
KINDS: tuple[Kind, ...] = (
    *OF_BYTES, to_circle, to_full_folder, to_pipe, Path.unlink, to_another,
)  # fmt: skip


def damage(path: Path, kind: Kind, seed: int) -> None:
    if kind in OF_BYTES:
        path.write_bytes(kind(path.read_bytes(), random.Random(seed)))
    else:
        kind(path)


@pytest.mark.parametrize("name", ["per_query", "top", "params"])
def test_a_damaged_file_of_the_workspace_gives_the_same_moves_or_one_message(
    repository: Path, name: str
) -> None:
    path = {
        "per_query": layout.per_query("es"), "top": layout.top("es"), "params": Path("params.yaml"),
    }[name]  # fmt: skip
    whole, data = report(), path.read_bytes()
    titles = {"per_query": True, "top": False, "params": True}[name]
    for number, kind in enumerate((*KINDS, *OF_BYTES)):
        damage(path, kind, number)
        found = outcome()
        if isinstance(found, str):
            assert "\n" not in found, (kind, number)
            assert name != "top", found
        elif titles or found == whole["moves"]:
            assert found == whole["moves"], (kind, number)
        else:
            assert without_titles(found, 1) == without_titles(whole["moves"], 1), (kind, number)
        restore(path, data)
    assert report() == whole


def without_titles(moves: Any, side: int) -> Any:
    """Return moves without the titles of A (0) or B (1)."""
    moves = copy.deepcopy(moves)
    for move in moves:
        for change in (*move["wins"], *move["losses"]):
            change["top"][side] = []
    return moves


def restore(path: Path, data: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        (path / "x").unlink()
        path.rmdir()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("kind", [cut, noise, to_circle, to_full_folder, Path.unlink, to_another])
@pytest.mark.parametrize("name", ["per_query", "params"])
def test_a_damaged_file_of_a_commit_gives_the_same_moves_or_one_message(
    repository: Path, name: str, kind: Kind
) -> None:
    path = {"per_query": layout.per_query("es"), "params": Path("params.yaml")}[name]
    commit_all(repository, ENVIRONMENT, "worse")
    whole = outcome("HEAD~1", "HEAD")
    if kind is to_another and name == "params":
        path.write_text("encoder: {es: {a: b}}\n")
    else:
        damage(path, kind, 1)
    commit_all(repository, ENVIRONMENT, "damaged")
    found = outcome("HEAD~2", "HEAD")
    if found != whole:  # a parameter file may be cut in its comments
        assert isinstance(found, str)
        assert "\n" not in found
        assert found.startswith((f"{path} of HEAD", "HEAD ("))


@pytest.mark.parametrize("held", [layout.per_query("es"), layout.PER_QUERY])
def test_a_damaged_object_of_git_is_one_message_with_the_way_out(
    repository: Path, held: Path
) -> None:
    sha = call(repository, ENVIRONMENT, "git", "rev-parse", f"HEAD:{held.as_posix()}").strip()
    path = Path(".git/objects", sha[:2], sha[2:])
    whole = path.read_bytes()
    path.chmod(0o644)
    for damaged in (whole[: len(whole) // 2], b"", None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        said = outcome("HEAD")
        assert isinstance(said, str)
        assert re.search(
            rf"^{held}\S*( of \w+)?: git \S+ failed: .*damaged, .* `git fsck` .* another clone\.$",
            said,
        )


def test_a_file_too_large_to_be_a_report_is_not_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compare.revision.LARGEST", 40_000)
    with layout.per_query("es").open("ab") as file:
        file.truncate(1 << 20)
    assert f"{layout.per_query('es')} of workspace is larger than" in outcome()
    commit_all(repository, ENVIRONMENT, "large")
    said = str(outcome("HEAD~1", "HEAD"))
    assert said.startswith(f"{layout.per_query('es')} of HEAD (")
    assert "is larger than 40,000 bytes" in said


def test_settings_that_loosen_the_comparison_are_said_however_many_others_differ(
    repository: Path,
) -> None:
    text = Path("params.yaml").read_text().replace("max_drop: 0.0", "max_drop: 0.5")
    Path("params.yaml").write_text(text.replace("alpha: 0.05", "alpha: 0.01"))
    call(repository, ENVIRONMENT, "git", "diff", "--stat")
    notes = report()["notes"]
    assert any("compare.max_drop is 0.0 in A, 0.5 in B" in note for note in notes), notes
