"""What every request passes: who may ask, how long an address may be; headers of every response."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""What a browser may call this server; another name would be a site that points at it."""

MOST_ADDRESS_BYTES = 1 << 16
"""The longest address: a query of 10,000 characters, percent-encoded, gets a message of its own."""

CROWDED = "too many connections at once. Try again in a second."

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


class Refusal(NamedTuple):
    """Why a request is not answered: the message, the HTTP status, and headers beside it."""

    problem: str
    status: int
    headers: Mapping[str, str] = {}


class Gate:
    """Sends away what may not ask, and adds `HEADERS` to every response, errors included."""

    def __init__(
        self,
        app: ASGIApp,
        turn_away: Callable[[str, Refusal], Response],
        crowded: Callable[[], bool],
    ) -> None:
        """Wrap an application.

        Args:
            app: what answers the others.
            turn_away: makes the response to a refused request, from its path.
            crowded: whether there are too many connections.
        """
        self._app, self._turn_away, self._crowded = app, turn_away, crowded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or send it away."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *named]
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else self._turn_away(scope["path"], refusal)
        await app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if self._crowded():
            headers = {"Retry-After": "1", "Connection": "close"}
            return Refusal(CROWDED, HTTPStatus.SERVICE_UNAVAILABLE, headers)
        host = Headers(scope=scope).get("host", "").rsplit(":", 1)[0]
        if host not in HOSTS:
            return Refusal(f"host: must be {' or '.join(HOSTS)}.", HTTPStatus.BAD_REQUEST)
        length = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if length > MOST_ADDRESS_BYTES:
            return Refusal(
                f"address: must have at most {MOST_ADDRESS_BYTES:,} bytes (found {length:,}). "
                "Shorten the query.",
                HTTPStatus.REQUEST_URI_TOO_LONG,
            )
        return None
