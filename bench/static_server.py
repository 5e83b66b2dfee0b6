"""A static server of our own, in this process: with range requests or without, any file types."""

import contextlib
import functools
import http.server
import io
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

_RANGE = re.compile(r"bytes=(\d+)-(\d+)$")


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as those of any real server
    disable_nagle_algorithm = True

    def __init__(
        self, *args: object, ranges: bool, types: Mapping[str, str], directory: str
    ) -> None:
        self.ranges = ranges
        self.extensions_map = {**self.extensions_map, **types}
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer a range with that part of the file, else as ever."""
        asked = _RANGE.match(self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (self.ranges and asked and path.is_file()):
            return super().send_head()
        size = path.stat().st_size
        start, stop = int(asked[1]), min(int(asked[2]) + 1, size)
        if start >= size:
            self.send_error(416)
            return None
        with path.open("rb") as handle:
            handle.seek(start)
            part = handle.read(stop - start)
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        return io.BytesIO(part)

    def handle_one_request(self) -> None:
        """Answer; a browser that no longer wants the answer is no error."""
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


@contextlib.contextmanager
def serve(
    folder: Path, *, ranges: bool = True, types: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve a folder on 127.0.0.1 within the block; yield its address.

    Args:
        folder: the folder.
        ranges: whether range requests are answered with a part.
        types: content types by a file's ending, such as {".js": "text/plain"}.
    """
    handler = functools.partial(_Handler, ranges=ranges, types=types or {}, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
