"""A web server that serves one video, whole or in parts, and misbehaves where the name says so."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNATURE = "X-Signature=s3cr3t"


class Server(http.server.ThreadingHTTPServer):
    """Serves one video; remembers what was asked. What a path does is in its name."""

    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.video, self.asked = video, [""]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.asked.append(self.path)
        asked = self.server.asked.count(self.path)
        if "signed" in path and SIGNATURE not in query:
            self._answer(403, b"<Message>Access denied</Message>")
        elif "expired" in path:
            self._answer(403, b"<Message>Request has expired</Message>")
        elif "missing" in path:
            self._answer(404, b"")
        elif "busy" in path and asked < 3:
            self._answer(503, b"")
        elif "short" in path and asked < 3:
            self._answer(200, self.server.video, len(self.server.video) - 100)
        elif "Range" in self.headers and "whole" not in path:
            first, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
            part = self.server.video[first : last + 1]
            self._answer(206, part, **{"Content-Range": f"bytes {first}-{last}/{len(self.server.video)}"})
        else:
            self._answer(200, self.server.video)

    def _answer(self, status: int, data: bytes, sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:sent])
        self.close_connection = sent is not None

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(video: bytes) -> Iterator[Server]:
    """A running server, until the end of the block."""
    server = Server(video)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
