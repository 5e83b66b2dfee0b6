"""The `python` of `warm_python`: `-m pipeline.NAME` runs in a fork, all else in a new Python.

It imports little, so that it starts at once.
"""

import json
import os
import socket
import sys

address, *arguments = sys.argv[1:]
if len(arguments) < 2 or arguments[0] != "-m" or not arguments[1].startswith("pipeline."):
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
with socket.socket(socket.AF_UNIX) as server:
    server.connect(address)
    socket.send_fds(server, [b"."], [1, 2])
    place = os.getcwd(), dict(os.environ)  # noqa: PTH109 (pathlib takes as long as all else here)
    server.sendall(json.dumps([*arguments[1:], *place]).encode())
    server.shutdown(socket.SHUT_WR)
    status = int(server.makefile().readline())
sys.exit(status if status >= 0 else 128 - status)  # as a shell says that a signal ended it
