"""A package index on this machine: one page a project (PEP 503), files with ranges, and the faults of real networks."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeIndex:
    """What the index serves, how it fails, and what it was asked."""

    url: str
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """File name -> (project, bytes)."""
    cut_after: list[int] = field(default_factory=list)
    """For each of the next file requests: close the connection after so many bytes of the body."""
    ranges: bool = True
    login: str = ""
    """Value that the Authorization header must have; empty asks for none."""
    files_at: str = ""
    """Where the links of the pages lead; empty: to this server itself."""
    logins: set[str] = field(default_factory=set)
    """Authorization headers that came with requests for files."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(file name, Range header) of every request for a file."""


@contextmanager
def run_index() -> Iterator[FakeIndex]:
    """Serve an empty index until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if index.login and self.headers.get("Authorization") != index.login:
                self.send_error(401)
            elif self.path.startswith("/simple/"):
                self._page(self.path.removeprefix("/simple/").strip("/"))
            else:
                self._file(self.path.removeprefix("/files/"))

        def _page(self, project: str) -> None:
            links = "".join(
                f'<a href="{index.files_at}/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
                for name, (owner, data) in index.files.items()
                if owner == project
            )
            if not links:
                self.send_error(404)
                return
            self._send(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), {"Content-Type": "text/html"})

        def _file(self, name: str) -> None:
            asked = self.headers.get("Range", "")
            index.requests.append((name, asked))
            index.logins.add(self.headers.get("Authorization", ""))
            data = index.files[name][1]
            if not asked or not index.ranges:
                self._send(200, data, {})
                return
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], {"Content-Range": span})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            is_file = self.path.startswith("/files/")
            self.wfile.write(body[: index.cut_after.pop(0)] if is_file and index.cut_after else body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = FakeIndex(f"http://127.0.0.1:{server.server_address[1]}/simple/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
