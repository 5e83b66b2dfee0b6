"""The server over a small project: pages and JSON, bad input, new artefacts, other hosts."""

import html
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import FIRST_SYSTEMS
from pipeline.search.freshness import signature
from pipeline.search.opening import open_engine
from pipeline.search.question import Question
from pipeline.serve import command
from pipeline.serve.app import BUSY, make_app
from pipeline.serve.desk import Desk
from pipeline.serve.engines import Engines
from pipeline.text.normalise import normalise
from tests.helpers.small_project import inside

pytestmark = pytest.mark.slow

NASTY = "<script>alert(1)</script>&amp;\"'<b>"


@pytest.fixture(scope="module")
def folder(small_project: Path) -> Iterator[Path]:
    """A small project in which the stages have run, as the working folder."""
    with inside(small_project):
        yield small_project


@pytest.fixture(scope="module")
def engines(folder: Path) -> Engines:
    """The open engine of its locale; nothing follows the artefacts."""
    return Engines(["es"])


@pytest.fixture
def client(engines: Engines) -> Iterator[TestClient]:
    """A client of the application."""
    desk = Desk()
    yield TestClient(make_app(engines, desk), base_url="http://127.0.0.1:8000")
    desk.close()


def test_json_is_what_the_engine_says(client: TestClient, engines: Engines) -> None:
    engine = engines.get("es")
    text = next(iter(engine.judged.rows))
    brand = engine.shown.facets["brand"].shown[0].as_py()
    values = {"q": text, "k": "7", "brand": brand, "systems": "hybrid,bm25"}
    answered = client.get("/api/search", params=values).json()
    question = Question(text, ("hybrid", "bm25"), 7, {"brand": brand})
    expected: Any = engine.search(question).as_dict()
    assert answered == expected
    assert list(answered["systems"]) == ["hybrid", "bm25"]
    product_id = engine.shown.ids[3].as_py()
    answered = client.get("/api/similar", params={"id": product_id, "k": "4"}).json()
    assert answered == engine.similar(product_id, 4).as_dict()
    assert client.get("/healthz").json() == {
        "ready": True, "locales": {"es": {"ready": True, "problem": ""}},
    }  # fmt: skip


def test_every_response_forbids_scripts_and_other_hosts(client: TestClient) -> None:
    for path in ("/", "/?q=a", "/?q=", "/similar/B1", "/api/search", "/healthz", "/none",
                 "/style.css", "/icon.svg"):  # fmt: skip
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example"):
        refused = client.get("/api/search?q=a", headers={"host": host})
        assert refused.status_code == 400
        assert "systems" not in refused.text
    assert client.post("/api/search").status_code == 405


def test_a_bug_is_a_500_without_its_text_under_the_same_policy(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.states["es"], "engine", object())
    desk = Desk()
    app = TestClient(
        make_app(engines, desk), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
    )
    answered = app.get("/api/similar?id=B1")
    desk.close()
    assert answered.status_code == 500
    assert answered.text == "Internal Server Error"
    assert answered.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"q": ""}, "query: must have text"),
        ({"q": "x" * 10_000}, "at most 1,000 characters (found 10,000)"),
        ({"q": "\x00\x07\u200b"}, "query: must have text"),
        ({"q": "<script>alert(1)</script>"}, "query: must have text"),
        ({"q": "a", "locale": "us"}, "locale: must be one of es (found 'us')"),
        ({"q": "a", "locale": NASTY}, "locale: must be one of es"),
        ({"q": "a", "k": "0"}, "k: must be from 1 to 1000"),
        ({"q": "a", "k": "1000000"}, "(found 1000000)"),
        ({"q": "a", "k": "-1"}, "k: must be a whole number (found '-1')"),
        ({"q": "a", "k": "²"}, "k: must be a whole number"),
        ({"q": "a", "brand": "Nobody"}, "brand: no es product has 'Nobody'"),
        ({"q": "a", "systems": "bm52", "left": "bm52"}, "did you mean 'bm25'"),
    ],
)
def test_bad_input_is_one_message_on_the_page_and_in_json(
    client: TestClient, values: dict[str, str], said: str
) -> None:
    answered = client.get("/api/search", params=values)
    assert answered.status_code == 400
    assert said in answered.json()["error"]
    page = client.get("/", params=values)
    assert page.status_code == 400
    assert page.text.count('role="alert"') == 1
    assert "<script" not in page.text
    assert said.split("'")[0].split("(")[0].strip() in page.text.replace("&#39;", "'")


def test_what_may_be_searched_for_is_never_markup_on_the_page(client: TestClient) -> None:
    for query in (f"zapatos {NASTY}", "<script>", "шапка", "靴", "' OR 1=1 --", "{{ 7*7 }}"):
        page = client.get("/", params={"q": query, "right": "hybrid"})
        assert page.status_code == 200
        assert "<script" not in page.text
        assert (
            f"<bdi>{html.escape(normalise(query), quote=False)}".replace("'", "&#39;").replace(
                '"', "&#34;"
            )
            in page.text
        )
    for path in ("/similar/nothing", f"/similar/{NASTY}"):
        page = client.get(path)
        assert page.status_code in (400, 404)
        assert "<script>alert" not in page.text


def test_the_page_shows_both_systems_their_labels_and_links_that_lead_on(
    client: TestClient, engines: Engines
) -> None:
    engine = engines.get("es")
    for text in list(engine.judged.rows)[:6]:
        page = client.get("/", params={"q": text, "left": "hybrid", "right": "dense"}).text
        answer = engine.search(Question(text, ("hybrid", "dense")))
        shown = page.split('<div class="columns">')[1]
        for label in "ESCI":
            held = [hit for hits in answer.systems.values() for hit in hits if hit.label == label]
            assert shown.count(f"chip-{label}") == len(held)
        for system in FIRST_SYSTEMS:
            assert (f'id="heading-{system}"' in page) == (system in answer.systems)
    links = [part.split('"')[0].replace("&amp;", "&") for part in page.split('href="')[1:]]
    assert len([link for link in links if link.startswith("/similar/")]) == 20
    for link in links:
        if link.startswith("/"):
            assert client.get(link).status_code == 200, link


def test_a_full_queue_is_503_and_says_when_to_come_again(engines: Engines) -> None:
    desk = Desk(waiting=0)
    client = TestClient(make_app(engines, desk), base_url="http://localhost:8000")
    assert desk._places.acquire(blocking=False)
    for path in ("/?q=a", "/api/search?q=a", "/api/similar?id=a", "/similar/a"):
        busy = client.get(path)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert BUSY in busy.text
    assert client.get("/healthz").status_code == 200
    desk._places.release()
    assert client.get("/?q=a").status_code == 200
    desk.close()


def test_the_old_artefacts_answer_until_new_ones_are_whole(folder: Path) -> None:
    engines = Engines(["es"])
    desk = Desk()
    client = TestClient(make_app(engines, desk), base_url="http://127.0.0.1")
    before = client.get("/api/search?q=zapatillas").json()
    index = layout.index("es").folder
    shutil.move(index, "away")  # as DVC does before it runs the stage
    engines.look("es")
    engines.look("es")
    assert client.get("/api/search?q=zapatillas").json() == before
    health = client.get("/healthz").json()["locales"]["es"]
    assert health["ready"]
    assert "Run `dvc repro index@es`" in health["problem"]
    old = engines.get("es")
    shutil.copytree("away", index)
    engines.look("es")
    assert engines.get("es") is old  # one look is not enough: it may still be written
    engines.look("es")
    assert engines.get("es") is not old
    assert engines.states["es"].problem == ""
    assert client.get("/api/search?q=zapatillas").json() == before
    shutil.rmtree("away")
    assert engines.states["es"].tried == signature("es")
    assert open_engine("es").locale == "es"
    desk.close()


def test_a_port_in_use_or_no_port_is_one_message() -> None:
    with socket.socket() as taken:
        taken.bind((command.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PipelineError, match=f"--port: {port} is in use. Use another"):
            command.bind(port)
    for port in (-1, 65_536):
        with pytest.raises(PipelineError, match=f"--port: must be from 0 to 65535 .found {port}"):
            command.bind(port)
    with command.bind(0) as free:
        assert free.getsockname()[0] == "127.0.0.1"
