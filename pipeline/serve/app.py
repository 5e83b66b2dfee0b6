"""The routes: pages for people, JSON for programs. Only GET, only from this machine."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.core.errors import PipelineError
from pipeline.core.systems import FIRST_SYSTEMS, System
from pipeline.search.answer import Answer, Similar
from pipeline.search.engine import Engine
from pipeline.search.question import (
    Question,
    UnknownProductError,
    read_filters,
    read_systems,
)
from pipeline.serve import pages, requests
from pipeline.serve.desk import BusyError, Desks
from pipeline.serve.engines import Engines
from pipeline.serve.gate import Gate, Refusal
from pipeline.serve.requests import Asked, Values, read_asked, read_flag, read_k, read_values

EXAMPLES = 6
"""How many judged queries the empty page offers."""


def make_app(
    engines: Engines, desks: Desks, crowded: Callable[[], bool] = lambda: False
) -> ASGIApp:
    """Return the application; while it is crowded, every request is sent away."""
    handlers = Handlers(engines, desks)
    routes = [
        Route("/", handlers.page),
        Route("/similar/{product_id:path}", handlers.similar_page),
        Route("/api/search", handlers.api_search),
        Route("/api/similar", handlers.api_similar),
        Route("/healthz", handlers.health),
        Route("/style.css", handlers.style),
        Route("/icon.svg", handlers.icon),
    ]
    refusals: Any = {HTTPException: handlers.refuse, Exception: handlers.fail}
    # Outside of Starlette: its answer to a bug is made outside of all middleware.
    return Gate(Starlette(routes=routes, exception_handlers=refusals), handlers.turn_away, crowded)


class Handlers:
    """What answers each route."""

    def __init__(self, engines: Engines, desks: Desks) -> None:
        """Answer from these engines, at these desks."""
        self._engines, self._desks = engines, desks

    async def page(self, request: Request) -> Response:
        """Show the page of a search."""

        async def answer(asked: Asked, engine: Engine, show: Callable[..., str]) -> str:
            if "q" not in request.query_params:
                return show(examples=_examples(engine))
            found = await self._search(engine, asked.question())
            return show(answer=found, depth=engine.params.retrieve.depth)

        return await self._page(request, requests.PAGE, pages.search_page, answer)

    async def similar_page(self, request: Request) -> Response:
        """Show the products that are similar to one."""

        async def answer(asked: Asked, engine: Engine, show: Callable[..., str]) -> str:
            product_id = request.path_params["product_id"]
            return show(similar=await self._similar(engine, product_id, asked.k))

        return await self._page(request, requests.PAGE, pages.similar_page, answer)

    async def api_search(self, request: Request) -> Response:
        """Search: q, locale, systems (with commas), k, brand, color, collapse, typed."""

        async def answer(values: Values) -> Any:
            engine = self._engine(values.get("locale"))
            systems: tuple[System, ...] = FIRST_SYSTEMS
            if "systems" in values:
                systems = read_systems(values["systems"].split(","))
            filters = read_filters(brand=values.get("brand"), color=values.get("color"))
            question = Question(
                values.get("q", ""), systems, read_k(values), filters,
                collapse=read_flag(values, "collapse"),
                as_typed=read_flag(values, "typed"),
            )  # fmt: skip
            return await self._search(engine, question)

        return await _answer_json(request, requests.API_SEARCH, answer)

    async def api_similar(self, request: Request) -> Response:
        """Find similar products: id, locale, k."""

        async def answer(values: Values) -> Any:
            engine, k = self._engine(values.get("locale")), read_k(values)
            return await self._similar(engine, values.get("id", ""), k)

        return await _answer_json(request, requests.API_SIMILAR, answer)

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
        return Response(pages.STYLE, media_type="text/css")

    async def icon(self, _: Request) -> Response:
        """Send the icon."""
        return FileResponse(pages.ASSETS / "icon.svg", media_type="image/svg+xml")

    async def refuse(self, request: Request, error: HTTPException) -> Response:
        """Answer what no route does: an unknown address, another method."""
        problem = f"{error.detail}: {request.method} {request.url.path[:100]}"
        return self.turn_away(
            request.url.path, Refusal(problem, error.status_code, dict(error.headers or {}))
        )

    async def fail(self, request: Request, _: Exception) -> Response:
        """Answer where a bug did; the log has it."""
        problem = HTTPStatus.INTERNAL_SERVER_ERROR
        return self.turn_away(request.url.path, Refusal(problem.phrase, problem))

    def turn_away(self, path: str, refusal: Refusal) -> Response:
        """Return a refusal in the form that the address is answered in: JSON or a page."""
        if path.startswith(("/api/", "/healthz")):
            return _json_problem(refusal)
        locales = list(self._engines.states)
        text = pages.search_page(Asked(), locales, FIRST_SYSTEMS, "und", problem=refusal.problem)
        return HTMLResponse(text, refusal.status, refusal.headers)

    async def _page(
        self,
        request: Request,
        known: Collection[str],
        render: Callable[..., str],
        answer: Callable[[Asked, Engine, Callable[..., str]], Awaitable[str]],
    ) -> Response:
        """Return a page, or the same page with what the user can correct."""
        states, language = list(self._engines.states), "und"
        systems: Sequence[System] = FIRST_SYSTEMS
        given = request.query_params
        asked = Asked(q=given.get("q", ""), locale=given.get("locale", ""))
        try:
            values = read_values(request.scope["query_string"], known)
            asked = read_asked(values, self._usual_locale())
            engine = self._engines.get(asked.locale)
            language = engine.params.language[asked.locale]
            systems = engine.params.systems_of(engine.locale)
            return HTMLResponse(
                await answer(asked, engine, partial(render, asked, states, systems, language))
            )
        except (PipelineError, BusyError) as err:
            refusal = _refusal(err)
            text = render(asked.cut(), states, systems, language, problem=refusal.problem)
            return HTMLResponse(text, refusal.status, refusal.headers)

    async def _search(self, engine: Engine, question: Question) -> Answer:
        return await self._desks.of(question.systems).run(lambda: engine.search(question))

    async def _similar(self, engine: Engine, product_id: str, k: int) -> Similar:
        return await self._desks.quick.run(lambda: engine.similar(product_id, k))

    def _engine(self, locale: str | None) -> Engine:
        return self._engines.get(locale or self._usual_locale())

    def _usual_locale(self) -> str:
        """Return what is searched where the address names no locale: the first that can be."""
        return [*self._engines.ready(), *self._engines.states][0]


async def _answer_json(
    request: Request, known: Collection[str], answer: Callable[[Values], Awaitable[Any]]
) -> Response:
    """Return the answer, or what the user can correct, with its status."""
    try:
        found = await answer(read_values(request.scope["query_string"], known))
    except (PipelineError, BusyError) as err:
        return _json_problem(_refusal(err))
    return JSONResponse(found.as_dict())


def _refusal(err: PipelineError | BusyError) -> Refusal:
    if isinstance(err, BusyError):
        retry = {"Retry-After": str(err.seconds)}
        return Refusal(str(err), HTTPStatus.SERVICE_UNAVAILABLE, retry)
    unknown = isinstance(err, UnknownProductError)
    return Refusal(str(err), HTTPStatus.NOT_FOUND if unknown else HTTPStatus.BAD_REQUEST)


def _json_problem(refusal: Refusal) -> Response:
    return JSONResponse({"error": refusal.problem}, refusal.status, refusal.headers)


def _examples(engine: Engine) -> list[str]:
    """Return some judged queries, spread over the sample."""
    texts = list(engine.judged.rows)
    return texts[:: max(1, len(texts) // EXAMPLES)][:EXAMPLES]
