"""The promises of the graph, with real DVC runs in a temporary repository and tiny local encoders.

The encoders of params.yaml keep their names, contracts and places; their weights are random models
in a git-ignored folder. Those of `labse` are on a hub, a real server on 127.0.0.1 that has a small
model of LaBSE's architecture: only the commit is another.

The stages are forks of one process (`warm_python`), but for those that a test kills, and for those
of the clean run elsewhere, which must come to the same bytes.
"""

import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from pipeline.encoders.model_folder import folder_sha256
from tests.helpers.artefacts import ROOT
from tests.helpers.hub_models import build_hub_model
from tests.helpers.loopback_hub import LoopbackHub, loopback_hub
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all, copy_project, run
from tests.helpers.tiny_models import build_model
from tests.helpers.warm_python import warm_python

pytestmark = pytest.mark.dvc

TRAINED, TEACHER = "minilm-demo", "reranker-demo"
BRANCH = (
    "clean", "embed", "index_entry", "index", "retrieve", "bm25", "hybrid", "rerank", "systems",
    "evaluate", "encoder_scores",
)  # fmt: skip
COPIED = (
    "dvc.yaml", "models/dvc.yaml", "params.yaml", "pipeline", "reports/bench/scale.json",
    "reports/tradeoff/README.md", "data/systems/.gitkeep",
    ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore",
)  # fmt: skip
OUTPUTS = ("data", "models", "reports")
PLOTS = ("intervals", "labels", "recall", "slices")
REPORTED = (
    "metrics/{}.json", "key_metrics/{}.json", "intervals/{}.json", "slices/{}.json",
    "per_query/{}.parquet", "encoder_scores/{}.json", "encoder_scores/{}.parquet",
    "plots/recall/{}.csv", "plots/training/{}.csv",
)  # fmt: skip
"""What Git holds of each locale, under reports/."""


def model(stage: str, name: str) -> str:
    """Return what DVC calls a stage of models/dvc.yaml."""
    return f"models/dvc.yaml:{stage}@{name}"


def after_embed(locale: str) -> set[str]:
    """Return the stages that other vectors of a locale rerun."""
    stages = ("embed", "index", "retrieve", "hybrid", "rerank", "evaluate", "encoder_scores")
    return {"report", *(f"{stage}@{locale}" for stage in stages)}


@dataclass(frozen=True)
class Project:
    """A repository in `folder`, with the environment its commands run in."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command; `python` is the one that DVC finds too."""
        if command[0] == "python":
            found = shutil.which("python", path=self.environment["PATH"])
            command = (str(found), *command[1:])
        return run(self.folder, self.environment, *command)

    def call(self, *command: str, status: int = 0) -> str:
        """Run a command, check its exit status, return what it printed."""
        done = self.run(*command)
        printed = done.stdout + done.stderr
        assert done.returncode == status, printed
        return printed

    def ran(self, *command: str) -> set[str]:
        """Run a DVC command and return the stages it really ran."""
        return set(re.findall(r"Running stage '(.+?)'", self.call("dvc", *command)))

    def change(self, *changes: str) -> None:
        """Change params.yaml as `dvc exp run -S` does, and run nothing."""
        apply_overrides(self.folder / "params.yaml", list(changes))

    def anew(self) -> "Project":
        """Return it with stages that are new processes, of another hash seed."""
        return Project(self.folder, {**self.environment, "PATH": PATH, "PYTHONHASHSEED": "2"})

    def lock(self) -> str:
        """Return both dvc.lock: the hash of every artefact."""
        locks = (self.folder / name for name in ("dvc.lock", "models/dvc.lock"))
        return "".join(lock.read_text(encoding="utf-8") for lock in locks)

    def commit(self) -> None:
        """Commit what was run, and copy the outputs, for `reset`."""
        self.call("git", "add", ".")
        self.call("git", "commit", "--quiet", "--message", "results")
        for name in OUTPUTS:
            shutil.copytree(self.folder / name, self.folder.with_name("kept") / name)

    def reset(self) -> None:
        """Go back to what was committed."""
        self.call("git", "reset", "--quiet", "--hard")
        for name in OUTPUTS:
            make_equal(self.folder / name, self.folder.with_name("kept") / name)


def make_equal(folder: Path, kept: Path) -> None:
    """Make the files below a folder those of a copy, but for equal ones: DVC knows their hashes."""
    found, wanted = (
        {path.relative_to(top) for path in top.rglob("*") if not path.is_dir()}
        for top in (folder, kept)
    )
    for path in found - wanted:
        (folder / path).unlink()
    for path in wanted:
        if path not in found or not filecmp.cmp(kept / path, folder / path):
            (folder / path).unlink(missing_ok=True)  # DVC may have linked it from its cache
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept / path, folder / path)


def make_project(folder: Path, encoders: Path, labse: str, **environment: str) -> Project:
    """Make a repository of this pipeline, with a small demo, the given encoders and a commit."""
    copy_project(COPIED, folder)
    shutil.copytree(encoders, folder / "local")
    rules = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    of_models = [
        line for line in rules if line.lstrip("!").startswith(("/models/", "/data/pairs/"))
    ]
    ignored = ["/local/", "__pycache__/", "*.partial", ".cache/", *of_models]
    (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
    yaml = YAML()
    data = yaml.load(folder / "params.yaml")
    data["demo"] |= {"products": 120, "queries": 40}
    for name in ("minilm", "e5-small-q4"):
        weights = {
            "kind": "folder",
            "path": f"local/{name}",
            "sha256": folder_sha256(encoders / name),
        }
        data["encoders"][name]["weights"] = weights
    data["encoders"]["labse"]["weights"]["revision"] = labse
    for name in ("minilm", "e5-small-q4", "labse"):
        data["encoders"][name]["max_tokens"] = 64
    data["training"]["dev_share"] = 0.5
    data["trained"][TRAINED] |= {"batch": 4, "max_tokens": 32}
    yaml.dump(data, folder / "params.yaml")
    own = ("PYTHONPATH", "PIPELINE_CACHE", "MAKEFLAGS", "MAKELEVEL")
    kept = {key: value for key, value in os.environ.items() if key not in own}
    surroundings = {**kept, **GIT_IDENTITY, "PATH": PATH, **environment}
    commit_all(folder, surroundings, "pipeline")
    return Project(folder, surroundings)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models of different seeds."""
    folder = tmp_path_factory.mktemp("encoders")
    build_model(folder / "minilm", seed=1)
    build_model(folder / "e5-small-q4", seed=2)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """A hub for the whole module."""
    with loopback_hub() as served:
        yield served


@pytest.fixture(scope="module")
def labse(tmp_path_factory: pytest.TempPathFactory, hub: LoopbackHub) -> str:
    """The commit of LaBSE on that hub."""
    folder = tmp_path_factory.mktemp("labse") / "model"
    return hub.publish("sentence-transformers/LaBSE", build_hub_model(folder, "labse"))


@pytest.fixture(scope="module")
def reproduced(
    tmp_path_factory: pytest.TempPathFactory, encoders: Path, hub: LoopbackHub, labse: str
) -> Iterator[Project]:
    """A project after its first `dvc repro`, committed. For tests that change nothing."""
    folder = tmp_path_factory.mktemp("reproduced")
    of_hub = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home")}
    with warm_python({**os.environ, **of_hub}) as python:
        path = os.pathsep.join([python, PATH])
        project = make_project(folder / "project", encoders, labse, PATH=path, **of_hub)
        stages = project.ran("repro")
        locales = ("us", "es", "jp")
        assert stages == {
            "demo", "sample", "report",
            *(f"{stage}@{locale}" for stage in BRANCH for locale in locales),
            *(model("contract", name) for name in ("minilm", "e5-small-q4")),
            model("contract-of-reranker", "none"),
        }  # fmt: skip
        project.commit()
        yield project


@pytest.fixture
def project(reproduced: Project) -> Iterator[Project]:
    """The reproduced project; what a test changes is put back."""
    yield reproduced
    reproduced.reset()


def test_a_second_repro_runs_nothing(reproduced: Project) -> None:
    assert reproduced.ran("repro") == set()


def test_a_locale_is_explored_alone_on_demand_and_twice_to_the_same_bytes(
    project: Project,
) -> None:
    ran = project.ran("exp", "run", "-S", "explore=[us]")
    assert {"similar@us", "duplicates@us"} <= ran
    assert all(name.endswith("@us") and name.split("@")[0] not in BRANCH for name in ran)
    lock = project.lock()
    assert project.anew().ran("repro", "--force", "--single-item", *sorted(ran)) == ran
    assert project.lock() == lock
    project.change("explore=[us,jp]")
    ran = project.ran("repro")
    assert ran
    assert all(name.endswith("@jp") for name in ran)
    project.change("similar.neighbours=11", "explore=[us]")
    ran = project.ran("repro")
    assert {"similar@us", "duplicates@us"} <= ran
    assert all(name.endswith("@us") for name in ran)


def test_what_git_and_a_remote_hold_is_all_that_a_clone_needs(
    project: Project, tmp_path: Path
) -> None:
    remote = ("dvc", "remote", "add", "--default", "team", str(tmp_path / "share"))
    project.call(*remote)
    project.call("dvc", "push")
    clone = Project(tmp_path / "clone", project.environment)
    project.call("git", "clone", "--quiet", str(project.folder), str(clone.folder))
    clone.call(*remote)
    clone.call("dvc", "pull")
    assert clone.ran("repro") == set()
    page = Path("reports/report.html")
    assert (clone.folder / page).read_bytes() == (project.folder / page).read_bytes()


def test_git_holds_the_reports_and_nothing_heavy(reproduced: Project) -> None:
    tracked = reproduced.call("git", "ls-files", "data", "models", "reports").split()
    assert {path for path in tracked if not path.endswith(".gitignore")} == {
        "data/systems/.gitkeep",
        "models/dvc.lock",
        "models/dvc.yaml",
        *(f"models/encoder/{name}/contract.json" for name in ("e5-small-q4", "minilm")),
        "models/reranker/none/contract.json",
        "reports/bench/scale.json",
        "reports/report.md",
        "reports/tradeoff/README.md",
        "reports/summary.json",
        *(f"reports/plots/{name}.csv" for name in (*PLOTS, "tradeoff", "training")),
        *(f"reports/{name.format(locale)}" for name in REPORTED for locale in ("us", "es", "jp")),
    }


def test_every_plot_defined_is_drawn_once_of_all_systems_and_locales(reproduced: Project) -> None:
    # The first line: DVC may add warnings after it.
    printed = reproduced.call("dvc", "plots", "show", "--json").partition("\n")[0]
    drawn = json.loads(printed)["data"]
    assert set(drawn) == {*PLOTS, "tradeoff", "training"}
    for name in PLOTS:
        (plot,) = drawn[name]
        points = plot["content"]["data"]["values"]
        assert {point["locale"] for point in points} == {"us", "es", "jp"}
        assert {point["system"] for point in points} == {"dense", "bm25", "hybrid", "random"}
        assert "DVC_METRIC" not in json.dumps(plot["content"])


def test_another_encoder_for_es_from_a_hub_reruns_the_es_branch_alone(
    project: Project, hub: LoopbackHub
) -> None:
    us = (project.folder / "reports/metrics/us.json").read_bytes()
    assert hub.requests == []
    ran = project.ran("exp", "run", "-S", "encoder.es=labse")
    assert "2_Dense/model.safetensors" in hub.fetched()
    assert ran == {model("contract", "labse"), *after_embed("es")}
    assert (project.folder / "reports/metrics/us.json").read_bytes() == us
    metrics = project.call("dvc", "metrics", "diff")
    moved = [line.split()[:2] for line in metrics.splitlines() if ".json" in line]
    assert ["reports/key_metrics/es.json", "dense.ndcg@10"] in moved
    assert {path for path, _ in moved} == {"reports/key_metrics/es.json"}
    compare = ("python", "-m", "pipeline.compare", "HEAD", "workspace", "--queries", "0")
    compared = project.run(*compare)
    assert compared.returncode in (0, 3), compared.stderr  # 3: a drop that is significant
    assert re.search(r"es +dense\.ndcg@10 ", compared.stdout)
    rows = [line for line in project.call("dvc", "params", "diff").splitlines() if "params" in line]
    assert [row.split()[:4] for row in rows] == [
        ["params.yaml", "encoder.es", "e5-small-q4", "labse"]
    ]


def test_two_commands_bring_a_model_folders_metrics_beside_the_others(
    project: Project, tmp_path: Path
) -> None:
    folder = build_model(tmp_path / "a model", seed=5, prompts={"query": "query: "})
    make = ("make", "--old-file=setup", f"--makefile={ROOT / 'Makefile'}", "try")
    project.call("python", "-m", "pipeline.encoders", "add", "mine", str(folder))
    printed = project.call(*make, "SET=encoder.es=mine")
    ran = set(re.findall(r"Running stage '(.+?)'", printed))
    assert ran == {model("contract", "mine"), *after_embed("es")}
    compared = printed[printed.index("A  before\nB  workspace\n") :]
    assert "es  encoder e5-small-q4 → mine, index flat" in compared
    rows = [line.split() for line in compared.splitlines() if " dense.ndcg@10 " in line]
    for row in rows:
        metrics = json.loads((project.folder / f"reports/metrics/{row[0]}.json").read_text())
        assert float(row[3]) == pytest.approx(metrics["dense"]["ndcg@10"], abs=1e-4)
        assert (row[-1] == "equal") == (row[0] != "es")
    assert [row[0] for row in rows] == ["us", "es", "jp"]
    assert project.call(*make, status=2).startswith("error: SET names no change.")


def test_another_index_for_us_reruns_its_search_and_no_encoding(project: Project) -> None:
    project.change("index.us=hnsw")
    ran = project.ran("repro")
    # hybrid's run may be the same: then nothing is reranked.
    searched = {"retrieve@us", "hybrid@us", "evaluate@us", "report"}
    assert ran - {"rerank@us"} == {"index_entry@us", "index@us", *searched}
    project.change("indexes.hnsw.ef_search=2000")
    ran = project.ran("repro")
    assert {"index_entry@us", "retrieve@us"} <= ran <= {"index_entry@us", "rerank@us", *searched}


def test_a_clone_without_data_sees_that_an_index_was_not_built_from_the_settings_of_the_lock(
    project: Project, tmp_path: Path
) -> None:
    plan = ("dvc", "repro", "--dry", "--allow-missing")
    project.change("index.us=sq8")
    project.ran("repro", "index_entry@us")
    changed = ("params.yaml", "dvc.lock", "dvc.yaml", "models/dvc.yaml", "models/dvc.lock")
    for path in changed:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(project.folder / path, tmp_path / path)
    project.reset()
    clone = tmp_path / "clone"
    call(tmp_path, project.environment, "git", "clone", "--quiet", str(project.folder), str(clone))
    assert "Running stage 'index@us'" not in call(clone, project.environment, *plan)
    for path in changed:
        shutil.copy(tmp_path / path, clone / path)
    said = call(clone, project.environment, *plan, status=255)
    assert "failed to reproduce 'index@us'" in said


def test_another_weight_of_the_fusion_reruns_no_search(project: Project) -> None:
    project.change("hybrid.dense_weight=0.3")
    ran = {name.split("@")[0] for name in project.ran("repro")}
    assert "hybrid" in ran
    assert ran <= {"hybrid", "rerank", "evaluate", "report"}


def test_what_no_locale_uses_and_what_only_changes_speed_reruns_nothing(project: Project) -> None:
    changes = (
        "encoders.labse.max_tokens=32",  # chosen by no locale
        f"trained.{TRAINED}.lr=0.001",  # nor this
        "training.seed=14",  # so nobody learns from them
        "indexes.hnsw.m=16",
        "runtime.threads=1",
        "runtime.engine=torch",
        "runtime.store_gigabytes=1",
        "runtime.executor=ray",
    )
    assert project.ran("exp", "run", *options(*changes)) == set()
    project.change(f"~trained.{TRAINED}", f"~trained.{TEACHER}")  # nor has any entry to be there
    assert project.ran("repro") == set()


def test_an_experiment_in_a_temporary_copy_finds_the_local_model_and_shares_its_vectors(
    project: Project,
) -> None:
    ran = project.ran("exp", "run", "--temp", "--name", "copy", "-S", "encoder.jp=labse")
    assert ran - {model("contract", "labse")} == after_embed("jp")
    assert "jp.json" in project.call("dvc", "metrics", "diff", "HEAD", "copy")
    project.change("encoder.jp=labse")
    printed = project.call("python", "-m", "pipeline.embed", "--locale", "jp")
    assert re.findall(r"encoder=labse .*encoded=(\d+)", printed) == ["0", "0"]


def options(*changes: str) -> list[str]:
    """Return the options of `dvc exp run` for changes of params.yaml."""
    return [part for change in changes for part in ("-S", change)]


def test_a_trained_encoder_is_trained_for_its_locale_alone_and_only_what_it_depends_on_reruns_it(
    project: Project,
) -> None:
    us = (project.folder / "reports/metrics/us.json").read_bytes()
    pairs, train = model("pairs", TRAINED), model("train", TRAINED)
    fast = [f"trained.{name}.{key}" for name in (TRAINED, TEACHER)
            for key in ("epochs=1", "max_tokens=16")]  # fmt: skip
    changes = options(f"encoder.es={TRAINED}", *fast)
    assert project.ran("exp", "run", *changes) == {pairs, train, *after_embed("es")}
    assert (project.folder / "reports/metrics/us.json").read_bytes() == us
    lock = project.lock()
    assert project.ran("repro") == set()
    # Weights that are trained a second time, in another place and from the start, are the same.
    shutil.rmtree(project.folder / ".cache/training")
    assert project.anew().ran("repro", "--force", "--single-item", pairs, train) == {pairs, train}
    assert project.lock() == lock
    # From here on, training alone: the stages after it are those of any other encoder.
    # Another contract around the same weights: no step is trained.
    project.change(f"+trained.{TRAINED}.dimension=16")
    assert project.ran("repro", train) == {train}
    # Other settings train it again, and a teacher is trained for its student.
    teacher = [model(stage, TEACHER) for stage in ("pairs", "train")]
    project.change(f"trained.{TRAINED}.loss=distill-kl-div", f"trained.{TRAINED}.teacher={TEACHER}")
    assert project.ran("repro", train) == {*teacher, train}
    # What is evaluated changed, and none of the pairs did: they are drawn, and nothing is trained.
    project.change("sample.distractors=5")
    ran = project.ran("repro", train)
    assert pairs in ran
    assert train not in ran


def test_a_reranker_for_us_runs_its_training_and_its_own_stages_alone_and_a_second_repro_nothing(
    project: Project,
) -> None:
    fast = [f"trained.{TEACHER}.{key}" for key in ("epochs=1", "batch=4", "max_tokens=16")]
    ran = project.ran("exp", "run", *options(f"rerank.us={TEACHER}", *fast))
    trained = {model(stage, TEACHER) for stage in ("pairs", "train")}
    assert ran == {*trained, "rerank@us", "evaluate@us", "report"}
    assert project.ran("repro") == set()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("encoder.es=nope", "models/encoder/nope"),
        ("index.us=hsnw", "indexes.hsnw"),
        ("encoder.ess=labse", "encoder.ess"),
    ],
)
def test_a_name_that_is_not_defined_is_refused_before_any_stage_runs(
    project: Project, change: str, name: str
) -> None:
    printed = project.call("dvc", "exp", "run", "-S", change, status=255)
    assert name in printed
    assert "Running stage" not in printed


def test_a_setting_of_the_wrong_type_stops_the_first_stage_and_its_old_output_comes_back(
    project: Project,
) -> None:
    printed = project.call("dvc", "exp", "run", "-S", "retrieve.depth=deep", status=255)
    assert "retrieve.depth: must be a valid integer (found 'deep')" in printed
    assert "Traceback" not in printed
    project.call("git", "checkout", "--quiet", ".")
    project.call("dvc", "checkout", "--quiet", "--force")
    assert project.ran("repro") == set()


def test_what_is_damaged_or_edited_between_stages_is_noticed_and_the_next_repro_heals_it(
    project: Project,
) -> None:
    lock = project.lock()
    shard, *texts = paths = [
        project.folder / name
        for name in (
            "data/embeddings/es/products-00000.npy", "data/clean/es/counts.json",
            "reports/metrics/es.json",
        )
    ]  # fmt: skip
    sound = {path: path.read_bytes() for path in paths}
    shard.unlink()  # DVC may have linked it from its cache
    shard.write_bytes(sound[shard][:-7])
    printed = project.call("python", "-m", "pipeline.index", "--locale", "es", status=1)
    assert "products-00000.npy must have" in printed
    for path in texts:
        path.unlink()
        path.write_bytes(sound[path].replace(b"1", b"2", 1))
    project.call("dvc", "repro")
    assert {path: path.read_bytes() for path in paths} == sound
    assert project.lock() == lock


def test_dvc_killed_with_all_its_stages_goes_on_and_ends_with_the_same_lock(
    project: Project,
) -> None:
    lock = project.lock()
    shutil.rmtree(project.folder / ".cache/vectors", ignore_errors=True)
    # Not --downstream: pairs and what learns from them are downstream of clean too.
    stages = [f"{stage}@es" for stage in BRANCH]
    command = ["dvc", "repro", "--force", "--single-item", *stages]
    environment = {**project.environment, "PATH": PATH}  # whose stages are children of DVC
    with subprocess.Popen(
        command, cwd=project.folder, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not list(
            (project.folder / ".cache").glob("vectors/*/*.npy")
        ):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    project.call("dvc", "repro")
    assert project.lock() == lock


def test_two_clean_runs_are_byte_identical_whatever_the_surroundings_and_the_jobs(
    reproduced: Project, encoders: Path, labse: str, tmp_path: Path
) -> None:
    elsewhere = make_project(
        tmp_path / "an other place", encoders, labse,
        PYTHONHASHSEED="1", TZ="Asia/Tokyo", LC_ALL="C", LANG="C",
    )  # fmt: skip
    elsewhere.call("python", "-m", "pipeline.repro", "--jobs", "2")
    # A first run writes dvc.lock in the order in which stages end.
    for lock in ("dvc.lock", "models/dvc.lock"):
        found, expected = (
            YAML(typ="safe").load(one.folder / lock)["stages"] for one in (elsewhere, reproduced)
        )
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name] == expected[name]


def test_metrics_are_equal_to_four_digits_whatever_the_engine_and_threads(
    project: Project,
) -> None:
    def numbers() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        text = "".join(
            (project.folder / f"reports/metrics/{locale}.json").read_text()
            for locale in ("us", "es", "jp")
        )
        return np.array(re.findall(r"-?\d+\.?\d*", text), dtype=np.float64)

    before = numbers()
    project.change("runtime.engine=torch", "runtime.threads=1")
    for name in ("embed", "index", "retrieve", "hybrid", "rerank", "evaluate"):
        project.call("python", "-m", f"pipeline.{name}")
    manifest = project.folder / "data/embeddings/es/manifest.json"
    assert '"engine": "torch-cpu"' in manifest.read_text()
    np.testing.assert_allclose(numbers(), before, atol=5e-5)
