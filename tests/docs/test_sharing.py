"""What docs/sharing.md says of DVC: commands that exist, and what they do in a small project."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
from dvc.cli import DvcParserError, parse_args

from tests.helpers.pages import PAGES, code_of
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

STAGE = """\
stages:
  sample:
    cmd: mkdir -p data/sample && cp data/shop/products.csv data/sample/ && cp params.yaml m.yaml
    deps:
    - data/shop
    params:
    - k
    outs:
    - data/sample
    metrics:
    - m.yaml:
        cache: false
"""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_dvc_command_named_is_one_that_dvc_knows(page: Path) -> None:
    for code in code_of(page):
        words = shlex.split(code.removesuffix("\\"), comments=True) if code[:4] == "dvc " else []
        if len(words) > 2 and "…" not in code:
            try:
                parse_args(words[1:])
            except DvcParserError:
                pytest.fail(f"{page}: DVC does not know `{code}`")


@pytest.mark.slow
@pytest.mark.dvc
def test_a_folder_that_git_ignores_and_an_experiment_reach_colleagues_as_the_page_says(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, **GIT_IDENTITY, "PATH": PATH}
    folder, colleague = tmp_path / "ours", tmp_path / "colleague"

    def ours(*command: str, status: int = 0) -> str:
        return call(folder, environment, *command, status=status)

    def theirs(*command: str, status: int = 0) -> str:
        return call(colleague, environment, *command, status=status)

    def push(message: str) -> None:
        commit_all(folder, environment, message)
        ours("dvc", "push")
        ours("git", "push", "--quiet", "origin", "HEAD:main")

    (folder / "data/shop").mkdir(parents=True)
    (folder / "data/shop/products.csv").write_text("product_id\n1\n")
    (folder / ".gitignore").write_text("/data/shop/\n/data/sample\n")
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / "params.yaml").write_text("k: 1\n")
    ours("git", "init", "--quiet")
    ours("git", "init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "origin.git"))
    ours("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    for command in ("init", "repro"):
        ours("dvc", command)
    commit_all(folder, environment, "without a remote")
    ours("dvc", "exp", "run", "--name", "early", "--set-param", "k=2")
    ours("git", "checkout", "--quiet", ".")
    ours("dvc", "remote", "add", "--default", "team", str(tmp_path / "share"))
    push("with a remote")
    assert "uploaded" not in ours("dvc", "exp", "push", "origin", "early")

    said = ours("dvc", "exp", "run", "--temp", "--set-param", "k=3", status=255)
    assert "No such file or directory" in said
    ours("dvc", "add", "data/shop")
    push("the tables too")
    ours("dvc", "exp", "run", "--temp", "--name", "late", "--set-param", "k=3")
    assert "late" in ours("dvc", "exp", "push", "origin", "late")

    call(tmp_path, environment, "git", "clone", "--quiet", "origin.git", str(colleague))
    theirs("dvc", "pull")
    assert (colleague / "data/shop/products.csv").read_text() == "product_id\n1\n"
    assert theirs("dvc", "status").strip().endswith("Data and pipelines are up to date.")
    shutil.rmtree(tmp_path / "share")  # from here on, Git only
    shutil.rmtree(colleague / ".dvc/cache")
    theirs("dvc", "exp", "pull", "--no-cache", "origin", "late")
    assert "m.yaml" in theirs("dvc", "metrics", "diff", "HEAD", "late")
