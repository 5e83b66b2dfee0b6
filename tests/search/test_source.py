"""A search does not answer from a shop whose tables or settings the stages have not read yet."""

import os
from pathlib import Path

import pytest
import yaml

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.search.source import check_source, hash_folder
from tests.helpers.artefacts import params
from tests.helpers.repository import GIT_IDENTITY, PATH, call

SHOP = Path("data/shop")
SAMPLE = params().sample.model_dump(mode="json")


def params_of(**changes: object) -> Params:
    return params({"sample": {**SAMPLE, "source": str(SHOP), **changes}})


def write_shop(products: str) -> Params:
    SHOP.mkdir(parents=True, exist_ok=True)
    (SHOP / layout.SHOP_MARK).touch()
    (SHOP / "products.csv").write_text(products)
    (SHOP / "judgements.csv").write_text("query,product_id,esci_label\nbett,1,E\n")
    return params_of()


def write_lock(given: Params, md5: str) -> None:
    sample = given.sample.model_dump(mode="json")
    stage = {
        "deps": [{"path": str(SHOP), "hash": "md5", "md5": md5}],
        "params": {"params.yaml": {"sample": sample}},
    }
    layout.LOCK.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"sample": stage}}))


def test_new_tables_or_settings_of_a_shop_are_refused_until_sample_has_read_them(
    project: Path,
) -> None:
    given = write_shop("product_id,product_title\n1,Bett\n")
    check_source(given)  # no stage has run through DVC: nothing is known
    write_lock(given, hash_folder(SHOP))
    check_source(given)
    write_shop("product_id,product_title\n1,Sofa\n")
    with pytest.raises(PipelineError, match=r"data/shop: .*newer.* Run `make repro`"):
        check_source(given)
    write_lock(given, hash_folder(SHOP))
    check_source(given)
    named = params_of(columns={"product_title": "name"})
    with pytest.raises(PipelineError, match=r"Run `make repro`"):
        check_source(named)
    (SHOP / layout.SHOP_MARK).unlink()  # as any other source, which may have gigabytes
    check_source(named)


@pytest.mark.parametrize("text", ["", "stages: [", "stages:\n  sample: 3\n", "- 1\n"])
def test_a_lock_that_says_nothing_of_sample_is_not_judged(project: Path, text: str) -> None:
    given = write_shop("product_id,product_title\n1,Bett\n")
    layout.LOCK.write_text(text)
    check_source(given)


@pytest.mark.dvc
def test_the_hash_of_a_folder_is_that_of_dvc(project: Path) -> None:
    write_shop("product_id,product_title\n1,Bett\n")
    environment = {**os.environ, **GIT_IDENTITY, "PATH": PATH}
    call(project, environment, "git", "init", "--quiet")
    call(project, environment, "dvc", "init", "--quiet")
    call(project, environment, "dvc", "add", "--quiet", str(SHOP))
    (added,) = yaml.safe_load(SHOP.with_suffix(".dvc").read_text())["outs"]
    assert added["md5"] == hash_folder(SHOP)
