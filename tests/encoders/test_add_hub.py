"""A model of the hub becomes an entry: its commit is looked up, pinned and said."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.encoders.catalogue.add import Added, add, check
from pipeline.encoders.catalogue.proposal import Wishes
from tests.helpers.loopback_hub import Fault, LoopbackHub, loopback_hub, use_hub
from tests.helpers.tiny_models import build_model

pytestmark = pytest.mark.slow  # models are loaded

CARD = "---\nlanguage: [es, ja]\nlicense: mit\n---\nPut 'query: ' before each query.\n"


@pytest.fixture
def hub(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, and a project on torch with a cache of its own."""
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("  engine: auto", "  engine: torch"), encoding="utf-8")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    with loopback_hub() as served:
        use_hub(monkeypatch, served.endpoint, tmp_path / "home")
        yield served


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_model(tmp_path_factory.mktemp("models") / "model", dense=8)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def added(name: str, source: str) -> Added:
    return add(name, source, Wishes(), replace=False, allow_pickle=False)


def test_a_branch_is_pinned_at_its_commit_of_today_and_said(hub: LoopbackHub, model: Path) -> None:
    commit = hub.publish("org/model", model)
    hub.branches |= {("org/model", "main"): commit, ("org/model", "dev"): commit}
    found = added("mine", "org/model")
    spec = load_params().encoders["mine"]
    assert spec.weights.model_dump(exclude_defaults=True) == {
        "kind": "hub", "model": "org/model", "revision": commit
    }  # fmt: skip
    assert found.notes == (
        f"the default branch of org/model is at {commit} today: the entry pins that commit",
    )
    assert spec.languages == ("es", "ja")
    assert found.proposal.licence == "mit"
    assert "README.md mentions 'query: '" in found.proposal.doubts[0]
    assert added("dev", "org/model@dev").notes[0].startswith("dev of org/model is at ")
    asked = len(hub.requests)
    assert check("mine")[1].dimension == 8
    assert len(hub.requests) == asked
    assert added("again", f"org/model@{commit}").notes == ()


def test_what_the_hub_does_not_give_is_one_message(hub: LoopbackHub, model: Path) -> None:
    commit = hub.publish("org/model", model)
    hub.branches["org/model", "main"] = commit
    before = Path("params.yaml").read_bytes()
    for source, fault, message in (
        ("org/unknown", None, "the hub has no such model, or it is private"),
        ("org/model@gone", None, "has no revision 'gone'"),
        ("org/model@" + "0" * 40, None, "has no revision"),
        ("org/model", Fault("/api/", 9, status=401), "no such model, or it is private.*HF_TOKEN"),
        ("org/model", Fault("/api/", 9, status=418), "the hub cannot be asked"),
    ):
        hub.faults[:] = [fault] if fault else []
        with pytest.raises(PipelineError, match=message) as err:
            added("mine", source)
        assert "\n" not in str(err.value)
    assert Path("params.yaml").read_bytes() == before


def test_the_hub_learns_nothing_of_this_machine_and_messages_hold_no_password(
    hub: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.branches["org/model", "main"] = hub.publish("org/model", model)
    added("mine", "org/model")
    assert {headers["user-agent"] for _, _, headers in hub.requests} == {"esci-retrieval"}
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint.replace("//", "//me:secret@"))
    hub.add(Fault("/api/", 9, status=500))
    with pytest.raises(PipelineError, match=r"the hub cannot be asked .HTTP 500") as err:
        added("other", "org/model")
    assert "secret" not in str(err.value)


def test_a_model_card_that_does_not_come_costs_its_advice_alone(
    hub: LoopbackHub, model: Path
) -> None:
    commit = hub.publish("org/model", model)
    hub.add(Fault("README.md", 99, status=403))
    found = added("mine", f"org/model@{commit}")
    assert load_params().encoders["mine"].languages == ("any",)
    assert "languages: no file names them" in found.proposal.doubts[0]


def test_a_pickle_on_the_hub_is_refused_before_its_weights_come(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    commit = hub.publish("org/pickled", build_model(tmp_path / "pickled", pickled=True))
    with pytest.raises(PipelineError, match="as a pickle only"):
        added("mine", f"org/pickled@{commit}")
    assert "pytorch_model.bin" not in hub.fetched()
