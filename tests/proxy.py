"""A proxy in front of a server, for tests and benchmarks: latency, a record of the requests, and faults.

    python tests/proxy.py http://127.0.0.1:8333 --delay 0.05

It works on the bytes of the connection, so signed requests pass; clients find it by its own address. Plain HTTP only.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_CHUNK = 1 << 18
_METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


@dataclass(frozen=True)
class Request:
    """One request as it was sent.

    Attributes:
        method: GET, PUT …
        path: without the query.
        range: (first, last) byte of its Range header.
        signed_url: whether the query carries the signature.
    """

    method: str
    path: str
    range: tuple[int, int | None] | None
    signed_url: bool


@dataclass(frozen=True)
class Fault:
    """What happens to a request; one that does nothing else closes the connection before the server hears of it.

    Attributes:
        answer: comes in the server's place.
        cut_after: bytes of the server's answer after which the connection is closed.
        reset_after: bytes of the request, its head included, after which the connection is reset.
        stall: seconds during which the request is held back.
        stall_answer: seconds during which the answer is held back.
    """

    answer: bytes = b""
    cut_after: int = 0
    reset_after: int = 0
    stall: float = 0.0
    stall_answer: float = 0.0


def http_error(status: int, code: str) -> bytes:
    """An S3 server's answer."""
    body = f"<Error><Code>{code}</Code></Error>".encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        target: host and port of the server.
        delay: seconds that each request takes longer to arrive.
        fault: what to do to a request, asked for each; None lets it pass.
        requests: what was asked, in order.
    """

    target: tuple[str, int]
    delay: float = 0.0
    fault: Callable[[Request], Fault | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    stop: Callable[[], object] = lambda: None

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serves until `stop` is called, by whatever thread."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        connections: set[asyncio.Task[None]] = set()

        # Not a coroutine: the server would complain of each connection that is open at the end.
        def accept(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connect(client, answers))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_CHUNK)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready()
        async with server:
            await server.serve_forever()

    async def _connect(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            server, requests = await asyncio.open_connection(*self.target, limit=_CHUNK)
        except OSError:
            answers.close()
            return
        connection = _Connection(self, answers)
        pumps = [
            asyncio.create_task(connection.up(client, requests)),
            asyncio.create_task(connection.down(server, answers)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for writer in (requests, answers):
            if connection.reset:
                # Without lingering, closing sends a reset in place of a proper end.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()


class _Connection:
    """The two directions of one connection."""

    def __init__(self, proxy: Proxy, answers: asyncio.StreamWriter) -> None:
        self._proxy, self._answers = proxy, answers
        self._left: int | None = None  # bytes of the answer that may still pass
        self._request_left: int | None = None  # bytes of the request that may
        self._hold = 0.0
        self.reset = False

    async def up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Passes requests on, each byte as much later as the delay says."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                sink.write(data)
                await sink.drain()
                line.task_done()

        delivery = asyncio.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(_CHUNK):
                    if data.startswith(_METHODS) and await self._fails(_parse(data)):
                        return
                    line.put_nowait((loop.time() + self._proxy.delay, data[: self._request_left]))
                    if self._request_left is not None:
                        self._request_left -= len(data)
                        if self._request_left <= 0:
                            await line.join()
                            self.reset = True
                            return
        finally:
            delivery.cancel()

    async def down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Passes answers back, as far as a fault lets them."""
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                hold, self._hold = self._hold, 0.0
                await asyncio.sleep(hold)
                sink.write(data[: self._left])
                await sink.drain()
                if self._left is not None:
                    self._left -= len(data)
                    if self._left <= 0:
                        return

    async def _fails(self, request: Request) -> bool:
        self._proxy.requests.append(request)
        fault = self._proxy.fault(request)
        if fault is None:
            return False
        if fault.answer:
            await asyncio.sleep(self._proxy.delay)
            self._answers.write(fault.answer)
            await self._answers.drain()
            return True
        self._left, self._request_left = fault.cut_after or None, fault.reset_after or None
        self._hold = fault.stall_answer
        await asyncio.sleep(fault.stall)
        return fault == Fault()


def _parse(data: bytes) -> Request:
    first, *headers = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
    wanted = fields.get("range", "").removeprefix("bytes=")
    begin, _, end = wanted.partition("-")
    url = urlsplit(path)
    place = (int(begin), int(end) if end else None) if wanted else None
    return Request(method, unquote(url.path), place, "X-Amz-Signature" in url.query)


def make_proxy(endpoint: str, delay: float = 0.0) -> Proxy:
    """A proxy for the server at a URL, not running yet."""
    parts = urlsplit(endpoint)
    return Proxy((str(parts.hostname), int(parts.port or 80)), delay)


@contextmanager
def proxied(endpoint: str, delay: float = 0.0) -> Iterator[Proxy]:
    """A proxy in a thread of this process, until the end of the block."""
    proxy, ready = make_proxy(endpoint, delay), threading.Event()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(proxy.serve(ready.set))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def main() -> None:
    """Serves as a command; prints its address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds added to each request")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    proxy = make_proxy(args.endpoint, args.delay)
    asyncio.run(proxy.serve(lambda: print(proxy.url, flush=True)))


if __name__ == "__main__":
    main()
