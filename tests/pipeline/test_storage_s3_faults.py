"""The S3 backend behind a proxy that cuts, refuses and truncates: what comes through is right, or an error."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxy import Fault, Proxy, Request, http_error, proxied
from s3_server import S3Server

from pipeline.errors import MarlinError
from pipeline.storage import Unavailable, open_store
from pipeline.storage.s3 import S3Store


@pytest.fixture
def between(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Store, Proxy]]:
    """A store behind a proxy."""
    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(s3_url)
        assert isinstance(store, S3Store)
        yield store, proxy


def first(times: int, fault: Fault) -> Callable[[Request], Fault | None]:
    """The fault for so many requests, none for later ones."""
    left = [fault] * times
    return lambda request: left.pop() if left else None


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nServer: x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_an_answer_that_breaks_off_in_its_head_is_no_answer(
    between: tuple[S3Store, Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Python's HTTP client takes half a head for a whole one, the missing body for an empty one."""
    store, proxy = between
    (source := tmp_path / "source").write_bytes(bytes(range(100)))
    store.write_file("key", source)
    operations: list[Callable[[], object]] = [
        lambda: store.read("key"),
        lambda: store.size("key"),
        lambda: b"".join(store.stream("key")),
        lambda: (store.fetch("key", tmp_path / "copy"), (tmp_path / "copy").read_bytes())[1],
        lambda: (store.write_file("key", source), store.write("other", b"1"), store.read("key"))[2],
    ]
    if b"Content-Length" not in head:
        operations.append(lambda: list(store.list()))
    expected = [operation() for operation in operations]
    assert len(set(map(str, expected))) > 1
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for operation, result in zip(operations, expected, strict=True):
        proxy.fault = first(3, Fault(answer=head))
        assert operation() == result
        proxy.fault = lambda request: Fault(answer=head)
        with pytest.raises(Unavailable):
            operation()


@pytest.mark.parametrize("cut", [1, 23, 40, 56, 100, 300])
def test_an_answer_may_break_off_anywhere(between: tuple[S3Store, Proxy], tmp_path: Path, cut: int) -> None:
    """At 23, botocore would read for ever what comes after `100 Continue`; at 56, a length breaks off."""
    store, proxy = between
    (source := tmp_path / "source").write_bytes(data := os.urandom(9 << 20))
    proxy.fault = first(4, Fault(cut_after=cut))
    store.write_file("key", source)
    proxy.fault = first(2, Fault(cut_after=cut))
    store.write("other", b"data")
    assert (store.read("key"), store.read("other")) == (data, b"data")


def test_a_stream_that_breaks_off_goes_on_there(between: tuple[S3Store, Proxy]) -> None:
    store, proxy = between
    data = os.urandom(8 << 20)
    store.write("key", data)
    proxy.requests.clear()
    proxy.fault = first(4, Fault(cut_after=2 << 20))
    assert b"".join(store.stream("key")) == data
    begins = [request.range[0] if request.range else 0 for request in proxy.requests]
    assert begins == sorted(set(begins))
    assert len(begins) == 5


def test_a_stream_never_mixes_two_versions(between: tuple[S3Store, Proxy]) -> None:
    store, proxy = between
    store.write("key", bytes(8 << 20))
    proxy.fault = first(1, Fault(cut_after=4 << 20))
    pieces = store.stream("key")
    assert not any(next(pieces))
    store.write("key", b"1" * (8 << 20))
    with pytest.raises(MarlinError, match="key: S3 GetObject failed"):
        list(pieces)


def test_a_stream_gives_up_on_a_dead_server(between: tuple[S3Store, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    store, proxy = between
    store.write("key", bytes(8 << 20))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    proxy.fault = lambda request: Fault(cut_after=1)
    with pytest.raises(MarlinError, match="key: cannot reach the S3 server"):
        list(store.stream("key"))


def test_a_fetch_that_breaks_off_again_and_again(
    between: tuple[S3Store, Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = between
    data = os.urandom(20 << 20)
    store.write("key", data)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    proxy.fault = first(6, Fault(cut_after=1 << 20))
    store.fetch("key", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    proxy.fault = lambda request: Fault(cut_after=1 << 20) if request.range else None
    with pytest.raises(Unavailable, match="key: cannot reach the S3 server"):
        store.fetch("key", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "fault", [Fault(http_error(503, "SlowDown")), Fault(http_error(403, "AccessDenied")), Fault(), Fault(cut_after=9)]
)
def test_where_the_quick_way_fails_the_usual_one_is_taken(between: tuple[S3Store, Proxy], fault: Fault) -> None:
    store, proxy = between
    store.write("key", bytes(range(100)))
    proxy.requests.clear()
    proxy.fault = first(1, fault)
    for _ in range(2):
        assert store.read_range("key", 10, 5) == bytes(range(10, 15))
    assert [request.range for request in proxy.requests] == [(10, 14)] * 3


def test_a_server_that_takes_no_signed_urls_is_not_asked_for_ever(between: tuple[S3Store, Proxy]) -> None:
    store, proxy = between
    store.write("key", bytes(range(100)))
    proxy.requests.clear()
    proxy.fault = lambda request: Fault(http_error(400, "InvalidRequest")) if request.signed_url else None
    for _ in range(10):
        assert store.read_range("key", 10, 5) == bytes(range(10, 15))
    assert sum(request.signed_url for request in proxy.requests) == 3
    assert len(proxy.requests) == 13
