"""Serve the page on this machine alone.

python -m pipeline.serve [--port 8000] [--locale es]
"""

import argparse
import errno
import logging
import os
import signal
import socket
import time
from typing import NoReturn

import uvicorn

from pipeline.core import stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.param_types import MOST_PORT
from pipeline.core.params_file import load_params
from pipeline.serve.app import make_app
from pipeline.serve.desk import Desks
from pipeline.serve.engines import Engines
from pipeline.serve.protocol import MOST_REQUEST_BYTES, Protocol

HOST = "127.0.0.1"
PORT = 8000

MOST_CONNECTIONS = 200


def main() -> NoReturn:
    """Serve until interrupted, and end the process."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.serve", description="Search in the browser, on this machine."
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: a free one")
    parser.add_argument("--locale", help="a key of `encoder` in params.yaml (default: all)")
    arguments = parser.parse_args()
    with stage.report_errors("serve", "was interrupted.") as outcome:
        serve(arguments.port, arguments.locale)
    # What still opens artefacts or searches can take minutes, and nothing of it is wanted. Python's
    # own end would wait for it, and show its traceback at the next Ctrl-C.
    logging.shutdown()
    os._exit(outcome.status)


def serve(port: int, locale: str | None) -> None:
    """Open the locales and answer requests until interrupted.

    Raises:
        PipelineError: the port is in use, or no locale can be opened.
    """
    started = time.monotonic()
    params = load_params()
    if locale is not None:
        stage.check_locale(params, locale)
    with bind(port) as listener:
        engines = Engines(None if locale is None else [locale])
        if not engines.ready():
            raise PipelineError(next(iter(engines.states.values())).problem)
        server = make_server(engines, Desks())
        log.info(
            "http://%s:%d locales=%s seconds=%.1f (Ctrl-C ends it)",
            HOST, listener.getsockname()[1], ",".join(engines.ready()), time.monotonic() - started,
        )  # fmt: skip
        engines.start()
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the next one would be a traceback
            log.info("ended")


def make_server(engines: Engines, desks: Desks) -> uvicorn.Server:
    """Return the server, which answers when it is run with a socket."""
    app = make_app(engines, desks, lambda: len(server.server_state.connections) > MOST_CONNECTIONS)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="off",
            http=Protocol, ws="none", h11_max_incomplete_event_size=MOST_REQUEST_BYTES,
            timeout_graceful_shutdown=5,
        )
    )  # fmt: skip
    return server


def bind(port: int) -> socket.socket:
    """Return a socket that listens on this machine's own address.

    Raises:
        PipelineError: the port is no port, is in use, or may not be used.
    """
    if not 0 <= port <= MOST_PORT:
        raise PipelineError(f"--port: must be from 0 to {MOST_PORT} (found {port}).")
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(MOST_CONNECTIONS)
    except OSError as err:
        listener.close()
        why = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs more rights"}
        if err.errno not in why:
            raise
        raise PipelineError(
            f"--port: {port} {why[err.errno]}. Use another, or 0 for a free one."
        ) from err
    return listener
