"""The server over a small project: pages and JSON, bad input, new artefacts, other hosts."""

import asyncio
import html
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.search.opening import open_engine
from pipeline.search.question import Question
from pipeline.serve import command
from pipeline.serve.app import make_app
from pipeline.serve.desk import RERANKS_WAITING, Desk, Desks
from pipeline.serve.engines import Engines
from pipeline.serve.gate import CROWDED
from pipeline.text.normalise import normalise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_small_project")]

NASTY = "<script>alert(1)</script>&amp;\"'<b>"


@pytest.fixture(scope="module")
def engines(in_small_project: Path) -> Engines:
    """The open engine of its locale; nothing follows the artefacts."""
    return Engines(["es"])


@pytest.fixture
def client(engines: Engines) -> TestClient:
    """A client of the application."""
    return TestClient(make_app(engines, Desks()), base_url="http://127.0.0.1:8000")


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
    for path in ("/", "/similar/B1", "/api/search", "/healthz"):
        assert client.post(path).status_code == 405


def test_a_bug_is_a_500_without_its_text_under_the_same_policy(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.states["es"], "engine", object())
    desks = Desks()
    app = TestClient(
        make_app(engines, desks), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
    )
    answered = app.get("/api/similar?id=B1")
    assert answered.status_code == 500
    assert answered.json() == {"error": "Internal Server Error"}
    assert answered.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"q": ""}, "query: must have text"),
        ({"q": "x" * 10_000}, "at most 1,000 characters (found 10,000)"),
        ({"q": "<script>alert(1)</script>"}, "query: must have text"),
        ({"q": "a", "locale": "us"}, "locale: must be one of es (found 'us')"),
        ({"q": "a", "locale": NASTY}, "locale: must be one of es"),
        ({"q": "a", "k": "0"}, "k: must be from 1 to 1000"),
        ({"q": "a", "k": "1e9"}, "k: must be a whole number in at most 100 digits (found '1e9')"),
        ({"q": "a", "k": "²"}, "k: must be a whole number"),
        ({"q": "a", "collapse": "yes"}, "collapse: must be 0 or 1 (found 'yes')"),
        ({"q": "a", "typed": "yes"}, "typed: must be 0 or 1 (found 'yes')"),
        ({"q": "a", "collapse": "1"}, "groups.json is missing. Add es to explore"),
        ({"q": "a", "brnd": "x"}, "address: unknown parameter 'brnd'; did you mean 'brand'?"),
        ({"q": "a", "brand": "Nobody"}, "brand: no es product has 'Nobody'"),
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
    assert len(page.text) < 5_000  # a query of 10,000 characters is not there again
    assert "<script" not in page.text
    assert said.split("'")[0].split("(")[0].strip() in page.text.replace("&#39;", "'")


def test_an_unknown_system_is_one_message(client: TestClient) -> None:
    for address in ("/api/search?q=a&systems=bm52", "/?q=a&left=bm52", "/?q=a&right=bm52"):
        answered = client.get(address)
        assert answered.status_code == 400
        assert "did you mean &#39;bm25&#39;" in answered.text.replace("'", "&#39;")


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/api/none", 404, "Not Found"),
        ("/api/similar?id=nothing", 404, "product_id: no es product is 'nothing'"),
        ("/api/similar?id=nothing&brand=x", 400, "address: unknown parameter 'brand'"),
        ("/api/search?q=%FF", 400, "address: must be percent-encoded UTF-8 (found '%FF')"),
        ("/api/search?q=a&q=b", 400, "q: must be given once"),
        ("/api/search?q=a", 400, "host: must be 127.0.0.1 or localhost."),
    ],
)
def test_every_error_of_the_api_is_json_and_of_the_page_a_page(
    client: TestClient, address: str, status: int, said: str
) -> None:
    headers = {"host": "evil.example"} if said.startswith("host") else {}
    answered = client.get(address, headers=headers)
    assert answered.status_code == status
    assert list(answered.json()) == ["error"]
    assert said.replace("'%FF'", "'q=%FF'") in answered.json()["error"]
    page = client.get(address.replace("/api/", "/x/"), headers=headers)
    assert page.status_code in (404, status)
    assert page.text.count('role="alert"') == 1


def test_a_server_that_is_too_full_or_gets_no_http_says_so_in_json(engines: Engines) -> None:
    desks = Desks()
    server = command.make_server(engines, desks)
    with command.bind(0) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def ask(data: bytes) -> tuple[bytes, Any]:
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(data)
                head, _, body = b"".join(iter(partial(connection.recv, 1 << 16), b"")).partition(
                    b"\r\n\r\n"
                )
            return head.splitlines()[0], json.loads(body)

        asked = b"GET /api/search?q=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert ask(asked % b"zapatillas")[0].split()[1] == b"200"
        for data, status, said in (
            (asked % "ñ".encode(), b"400", "the request is not HTTP"),
            (asked % (b"a" * 70_000), b"414", "at most 65,536 bytes (found 70,0"),
            (b"GET /?q=" + b"a" * 262_500, b"414", "at most 262,144 bytes"),
        ):
            line, body = ask(data)
            assert line.split()[1] == status
            assert said in body["error"]
        held = [socket.create_connection(address) for _ in range(command.MOST_CONNECTIONS)]
        line, body = ask(asked % b"zapatillas")
        assert (line.split()[1], body) == (b"503", {"error": CROWDED})
        server.should_exit = True  # with all these connections open
        thread.join(30)
        assert not thread.is_alive()
        for connection in held:
            connection.close()


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
    for path in ("/similar/nothing", f"/similar/{NASTY}", "/similar/", "/none"):
        page = client.get(path)
        assert page.status_code == 404
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


def test_the_way_back_from_a_similar_product_has_all_that_was_asked_for(client: TestClient) -> None:
    asked = "/?q=zapatos&locale=es&left=hybrid&k=20"
    page = client.get(asked).text
    similar = next(part for part in page.split('href="') if part.startswith("/similar/"))
    there = client.get(similar.split('"')[0].replace("&amp;", "&")).text
    back = there.split('class="back"')[1].split('href="')[1].split('"')[0].replace("&amp;", "&")
    assert set(back.removeprefix("/?").split("&")) == set(asked.removeprefix("/?").split("&"))


def sent(page: str) -> dict[str, str]:
    """Return what a browser sends of a page's form as it is."""
    form = page.split("<form")[1].split("</form>")[0]
    values = {}
    for field in re.findall("<input[^>]*>", form):
        given = dict(re.findall('([a-z]+)="([^"]*)"', field))
        if given["type"] != "checkbox" or field.endswith(" checked>"):
            values[given["name"]] = html.unescape(given["value"])
    for name, options in re.findall(r'(?s)<select name="(\w+)">(.*?)</select>', form):
        values[name] = re.findall(r'value="(\w+)" selected', options)[0]
    return values


def test_the_form_keeps_what_was_asked_for_and_every_filter_can_be_taken_away(
    client: TestClient, engines: Engines
) -> None:
    engine = engines.get("es")
    products = (engine.product(row) for row in range(len(engine.shown.ids)))
    product = next(each for each in products if each.brand and each.color)
    usual = {"q": "zapatos", "locale": "es", "left": "hybrid", "right": "bm25"}
    asked = usual | {"k": "20", "brand": product.brand, "color": product.color, "typed": "1"}
    for path in ("/", f"/similar/{product.product_id}"):
        page = client.get(path, params=asked)
        assert page.status_code == 200
        assert sent(page.text) == asked
        assert sent(client.get(path, params=usual).text) == usual
    wrong = {name: value for name, value in asked.items() if name != "k"} | {"brand": NASTY}
    refused = client.get("/", params={**wrong, "k": "0"})
    assert refused.status_code == 400
    assert sent(refused.text) == wrong
    assert refused.text.count('type="checkbox" name="brand"') == 1


@contextmanager
def taken(desk: Desk, places: int) -> Iterator[None]:
    """Take places of a desk with searches that end with the block."""
    full, go_on = threading.Event(), threading.Event()

    async def search() -> None:
        searches = [asyncio.create_task(desk.run(go_on.wait)) for _ in range(places)]
        await asyncio.sleep(0)  # each has its place now
        full.set()
        await asyncio.gather(*searches)

    thread = threading.Thread(target=lambda: asyncio.run(search()))
    thread.start()
    try:
        assert full.wait(60)
        yield
    finally:
        go_on.set()
        thread.join()


def test_a_full_queue_is_503_and_says_when_to_come_again(engines: Engines) -> None:
    desks = Desks(quick=Desk(waiting=0))
    client = TestClient(make_app(engines, desks), base_url="http://localhost:8000")
    with taken(desks.quick, 1):
        for path in ("/?q=a", "/api/search?q=a", "/api/similar?id=a", "/similar/a"):
            busy = client.get(path)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
            assert "too many searches at once. Try again in a second." in busy.text
        assert client.get("/healthz").status_code == 200
    assert client.get("/?q=a").status_code == 200


def test_no_search_waits_for_a_rerank_and_of_these_one_may_wait(engines: Engines) -> None:
    desks = Desks()
    client = TestClient(make_app(engines, desks), base_url="http://localhost:8000")
    with taken(desks.rerank, 1 + RERANKS_WAITING):
        for path in ("/?q=a&left=rerank", "/api/search?q=a&systems=bm25,rerank"):
            busy = client.get(path)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "10")
            assert "too many searches with rerank at once. Try again in 10 seconds." in busy.text
        for path in ("/?q=a", "/api/search?q=a", "/api/similar?id=a"):
            assert client.get(path).status_code != 503
        assert list(client.get("/api/search?q=a").json()["systems"]) == list(FIRST_SYSTEMS)
    assert client.get("/api/search?q=a&systems=rerank").status_code == 400  # es has none


def test_the_old_artefacts_answer_until_new_ones_are_whole() -> None:
    engines = Engines(["es"])
    client = TestClient(make_app(engines, Desks()), base_url="http://127.0.0.1")
    before = client.get("/api/search?q=zapatillas").json()
    old, index = engines.get("es"), layout.index("es").folder
    shutil.move(index, "away")  # as DVC does before it runs the stage
    try:
        engines.look("es")
        engines.look("es")
        assert client.get("/api/search?q=zapatillas").json() == before
        assert engines.get("es") is old
        health = client.get("/healthz").json()["locales"]["es"]
        assert health["ready"]
        assert "Run `dvc repro index@es`" in health["problem"]
    finally:
        shutil.copytree("away", index)  # moved back, it would be the old one
        shutil.rmtree("away")
    engines.look("es")
    assert engines.get("es") is old  # one look is not enough: it may still be written
    engines.look("es")
    assert engines.get("es") is not old
    assert engines.states["es"].problem == ""
    assert client.get("/api/search?q=zapatillas").json() == before


def test_what_was_warmed_answers_while_dvc_has_removed_the_vectors() -> None:
    engine = open_engine("es")
    question, product_id = Question(next(iter(engine.judged.rows))), engine.shown.ids[3].as_py()
    expected = engine.search(question), engine.similar(product_id, 4)
    engines = Engines(["es"])
    served = engines.get("es")
    served.warm()
    vectors = layout.embeddings("es").folder
    shutil.move(vectors, "away")  # as DVC does before it runs `embed`
    try:
        engines.look("es")
        engines.look("es")
        assert engines.get("es") is served
        assert (served.search(question), served.similar(product_id, 4)) == expected
    finally:
        shutil.move("away", vectors)


def test_locales_come_and_go_with_params() -> None:
    engines = Engines()
    assert list(engines.states) == ["es"]
    text = layout.PARAMS.read_text().replace("samples: 100\n", "samples: 1000\n")
    for key in ("encoder", "index", "language", "rerank", "spelling", "systems"):
        value = load_params().model_dump()[key]["es"]
        text = re.sub(rf"(?m)^{key}:$", f"{key}:\n  mx: {value}", text)
    before = layout.PARAMS.read_bytes()
    layout.PARAMS.write_text(text)
    try:
        engines.look_for_locales()
        assert set(engines.states) == {"es", "mx"}
        with pytest.raises(PipelineError, match=r"^mx is being opened"):
            engines.get("mx")
        assert [engines.look("mx"), engines.look("mx")] == [False, True]
        with pytest.raises(PipelineError, match="mx"):
            engines.get("mx")  # nothing of it is built
        layout.PARAMS.write_text("{")  # somebody is writing it
        engines.look_for_locales()
        assert set(engines.states) == {"es", "mx"}
    finally:
        layout.PARAMS.write_bytes(before)
    engines.look_for_locales()
    assert engines.ready() == list(engines.states) == ["es"]
    chosen = Engines(["es"])
    chosen.look_for_locales()
    assert list(chosen.states) == ["es"]


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


def test_the_port_of_a_server_that_was_killed_is_free_at_once() -> None:
    with command.bind(0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()  # first: the system keeps this end for a minute
    with command.bind(address[1]) as again:
        assert again.getsockname() == address
