import os
from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.outputs import refuse_artefacts, refuse_overlap, refuse_to_lose


@pytest.mark.parametrize(
    ("given", "output"),
    [("out", "out"), ("out/in", "out"), (".", "out"), ("link", "out"), ("out/a/link", "out"),
     ("real/in", "outlink"), ("a/../out/in", "out"), ("out/missing", "out")],
)  # fmt: skip
def test_an_input_in_the_output_or_around_it_is_refused(
    tmp_path: Path, given: str, output: str
) -> None:
    for folder in ("out/in", "out/a", "real/in", "a", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out/in")
    (tmp_path / "out/a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "outlink").symlink_to(tmp_path / "real")

    with pytest.raises(PipelineError, match="which this stage replaces"):
        refuse_overlap([tmp_path / "a", tmp_path / given], tmp_path / output)


def test_inputs_beside_the_output_are_taken(tmp_path: Path) -> None:
    refuse_overlap([tmp_path / "output", tmp_path / "ou", Path("x\0y")], tmp_path / "out")


def test_a_path_that_an_argument_names_is_no_artefact_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = layout.metrics("es")
    write_json(path, 1)
    Path("link.json").symlink_to(path)
    Path("folder").symlink_to(path.parent)
    for given in (
        Path(".git/HEAD"), Path(".dvc/config"),
        path, path.absolute(), Path("link.json"), Path("folder/new.json"), Path("params.yaml"),
        layout.METRICS, Path("reports/../reports/metrics/us.json"), layout.PAGE,
        *layout.LOCKS, layout.MODELS_GRAPH, layout.PAIRS / "name" / "train.parquet",
        Path("models/encoder/name/model.safetensors"), Path("models/reranker/name/card.json"),
    ):  # fmt: skip
        with pytest.raises(PipelineError, match=f"^--json {given}: must not be an artefact"):
            refuse_artefacts({"--json": given})
    free = Path("reports/mine.json")
    refuse_artefacts({"--json": free, "--markdown": None})
    null = Path(os.devnull)
    refuse_artefacts({"--json": null, "--markdown": null})
    with pytest.raises(PipelineError, match=r"^--json reports/mine\.json: --markdown names it too"):
        refuse_artefacts({"--markdown": free.absolute(), "--json": free})
    Path("mine").mkdir()
    refuse_artefacts({"--out": Path("mine")}, folders=True, replaced=True)
    for above in (Path(), Path("data"), tmp_path / "reports"):
        refuse_artefacts({"--out": above}, folders=True)
        with pytest.raises(PipelineError, match=f"^--out {above}: must not contain .* replaced"):
            refuse_artefacts({"--out": above}, folders=True, replaced=True)
    with pytest.raises(PipelineError, match=r"^mine is a folder\. Name a file\.$"):
        refuse_artefacts({"--json": Path("mine")})


def test_a_folder_is_replaced_only_if_all_its_files_are_the_commands_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refuse_to_lose(out)
    (out / "a/b").mkdir(parents=True)
    refuse_to_lose(out)
    (out / "a/b/own").touch()
    refuse_to_lose(out, {"a/b/own", "never written"})
    for name in ("other", "a/other", "a/b/other"):
        (out / name).symlink_to(tmp_path)  # a link is lost too, and not followed
        with pytest.raises(
            PipelineError, match=f"^--out {out}: .* and {name} in it would be lost.*absent or empty"
        ):
            refuse_to_lose(out, {"a/b/own"})
        (out / name).unlink()
    with pytest.raises(PipelineError, match=r"own is a file\. Name a folder that is absent or"):
        refuse_to_lose(out / "a/b/own")
