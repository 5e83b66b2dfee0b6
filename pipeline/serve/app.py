"""The routes: pages for people, JSON for programs. Only GET, only from this machine."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.core.errors import PipelineError
from pipeline.core.params import FIRST_SYSTEMS
from pipeline.search.engine import Engine
from pipeline.search.question import Question, read_filters, read_systems
from pipeline.serve import pages
from pipeline.serve.desk import BusyError, Desk
from pipeline.serve.engines import Engines
from pipeline.serve.requests import Asked, read_asked, read_k

HOSTS = ["127.0.0.1", "localhost"]
"""What a browser may call this server; another name would be a site that points at it."""

RETRY_SECONDS = "1"

BUSY = "too many searches at once. Try again in a second."

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

EXAMPLES = 6
"""How many judged queries the empty page offers."""


def make_app(engines: Engines, desk: Desk) -> ASGIApp:
    """Return the application."""
    handlers = Handlers(engines, desk)
    routes = [
        Route("/", handlers.page),
        Route("/similar/{product_id:path}", handlers.similar_page),
        Route("/api/search", handlers.api_search),
        Route("/api/similar", handlers.api_similar),
        Route("/healthz", handlers.health),
        Route("/style.css", handlers.style),
        Route("/icon.svg", handlers.icon),
    ]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    # Outside of Starlette: its answer to a bug is made outside of all middleware.
    return SafeHeaders(Starlette(routes=routes, middleware=[trusted]))


class SafeHeaders:
    """Adds `HEADERS` to every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its response."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *named]
            await send(message)

        await self._app(scope, receive, with_headers)


class Handlers:
    """What answers each route."""

    def __init__(self, engines: Engines, desk: Desk) -> None:
        """Answer from these engines, at this desk."""
        self._engines, self._desk = engines, desk

    async def page(self, request: Request) -> Response:
        """Show the page of a search."""
        asked, locales = Asked(), list(self._engines.states)
        language = "und"

        def show(problem: str, status: int) -> Response:
            text = pages.search_page(asked, locales, language, problem=problem)
            return HTMLResponse(text, status)

        async def answer() -> Response:
            nonlocal asked, language
            values = request.query_params
            asked = Asked(q=values.get("q", "")[:200], locale=values.get("locale", "")[:40])
            asked = read_asked(values, self._engines.ready() or locales)
            engine = self._engines.get(asked.locale)
            language = engine.params.language[asked.locale]
            if "q" not in values:
                text = pages.search_page(asked, locales, language, examples=_examples(engine))
                return HTMLResponse(text)
            found = await self._desk.run(lambda: engine.search(asked.question()))
            depth = engine.params.retrieve.depth
            return HTMLResponse(
                pages.search_page(asked, locales, language, answer=found, depth=depth)
            )

        return await _or_problem(answer, show)

    async def similar_page(self, request: Request) -> Response:
        """Show the products that are similar to one."""
        asked, locales = Asked(), list(self._engines.states)
        language = "und"

        def show(problem: str, status: int) -> Response:
            text = pages.similar_page(asked, locales, language, problem=problem)
            return HTMLResponse(text, status)

        async def answer() -> Response:
            nonlocal asked, language
            asked = read_asked(request.query_params, self._engines.ready() or locales)
            engine = self._engines.get(asked.locale)
            language = engine.params.language[asked.locale]
            product_id = request.path_params["product_id"]
            found = await self._desk.run(lambda: engine.similar(product_id, asked.k))
            return HTMLResponse(pages.similar_page(asked, locales, language, similar=found))

        return await _or_problem(answer, show)

    async def api_search(self, request: Request) -> Response:
        """Search: q, locale, systems (with commas), k, brand, color."""

        async def answer() -> Response:
            values = request.query_params
            engine = self._engine(values.get("locale"))
            systems = read_systems(values.get("systems", ",".join(FIRST_SYSTEMS)).split(","))
            filters = read_filters(brand=values.get("brand"), color=values.get("color"))
            question = Question(values.get("q", ""), systems, read_k(values), filters)
            found = await self._desk.run(lambda: engine.search(question))
            return JSONResponse(found.as_dict())

        return await _or_problem(answer, _json_problem)

    async def api_similar(self, request: Request) -> Response:
        """Find similar products: id, locale, k."""

        async def answer() -> Response:
            values = request.query_params
            engine, k = self._engine(values.get("locale")), read_k(values)
            found = await self._desk.run(lambda: engine.similar(values.get("id", ""), k))
            return JSONResponse(found.as_dict())

        return await _or_problem(answer, _json_problem)

    async def health(self, _: Request) -> Response:
        """Say which locales can be searched; 503 where none can."""
        locales: dict[str, Any] = {
            locale: {"ready": state.engine is not None, "problem": state.problem}
            for locale, state in self._engines.states.items()
        }
        ready = bool(self._engines.ready())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"ready": ready, "locales": locales}, status)

    async def style(self, _: Request) -> Response:
        """Send the style sheet."""
        return FileResponse(pages.ASSETS / "style.css", media_type="text/css")

    async def icon(self, _: Request) -> Response:
        """Send the icon."""
        return FileResponse(pages.ASSETS / "icon.svg", media_type="image/svg+xml")

    def _engine(self, locale: str | None) -> Engine:
        ready = self._engines.ready()
        return self._engines.get(
            locale or (ready[0] if ready else next(iter(self._engines.states)))
        )


async def _or_problem(
    answer: Callable[[], Awaitable[Response]], show: Callable[[str, int], Response]
) -> Response:
    """Return the answer, or what the user can correct with its status."""
    try:
        return await answer()
    except PipelineError as err:
        return show(str(err), HTTPStatus.BAD_REQUEST)
    except BusyError:
        response = show(BUSY, HTTPStatus.SERVICE_UNAVAILABLE)
        response.headers["Retry-After"] = RETRY_SECONDS
        return response


def _json_problem(problem: str, status: int) -> Response:
    return JSONResponse({"error": problem}, status)


def _examples(engine: Engine) -> list[str]:
    """Return some judged queries, spread over the sample."""
    texts = list(engine.judged.rows)
    return texts[:: max(1, len(texts) // EXAMPLES)][:EXAMPLES]
