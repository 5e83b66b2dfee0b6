"""HTTP as uvicorn speaks it; what is not a request at all is refused in JSON too."""

import json
import sys
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_REQUEST_BYTES = 1 << 18
"""A longer request line with its headers is refused before it is read."""


class Protocol(H11Protocol):
    """Answers in JSON where no address was understood that could say what to answer in."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is too long to be read, or is not HTTP."""
        hint = getattr(sys.exception(), "error_status_hint", None)
        if hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
            most = f"{MOST_REQUEST_BYTES:,} bytes"
            problem = f"the address and the headers must have at most {most}. Shorten them."
        else:
            status = HTTPStatus.BAD_REQUEST
            problem = "the request is not HTTP. Percent-encode the address."
        body = json.dumps({"error": problem}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        for event in (
            h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
