"""The S3 backend against a real server: what goes wrong on the way, and what it is called then."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from s3_server import READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, SECRET_KEY, free_port
from urllib3 import HTTPResponse

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import AlreadyExists, ConditionalPutsIgnored, open_store
from pipeline.storage.s3 import S3Store
from pipeline.storage.single import create_alone

REPOSITORY = Path(__file__).parents[2]
WRONG_SECRET = "wrong-but-still-secret"


@pytest.fixture
def s3(s3_url: str) -> S3Store:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    return store


def on(store: S3Store, event: str, handler: Callable[..., object]) -> None:
    """Let `handler` see, change or answer the client's requests, as the network in between could."""
    store.bucket.client.meta.events.register_first(event, handler)


def ignore(store: S3Store, header: str) -> None:
    """Let the server not know a header of puts."""

    def strip(request: Any, **_: object) -> None:
        if header in request.headers:
            del request.headers[header]

    on(store, "before-sign.s3.PutObject", strip)


def answer(status: int, body: bytes, **headers: str) -> AWSResponse:
    raw = HTTPResponse(io.BytesIO(body), status=status, preload_content=False)
    return AWSResponse("http://between", status, {name.replace("_", "-"): text for name, text in headers.items()}, raw)


def failures(url: str, tmp_path: Path) -> list[str]:
    """Messages of every operation on a store at `url`, each of which must fail."""
    source = tmp_path / "source"
    source.write_bytes(b"data")
    operations: list[Callable[[], object]] = [
        lambda: open_store(url).check(),
        lambda: open_store(url).read("key"),
        lambda: open_store(url).exists("key"),
        lambda: open_store(url).write("key", b"data"),
        lambda: open_store(url).create("key", b"data"),
        lambda: open_store(url).write_file("key", source),
        lambda: open_store(url).fetch("key", tmp_path / "copy"),
        lambda: list(open_store(url).list()),
        lambda: open_store(url).delete("key"),
    ]
    messages = []
    for operation in operations:
        with pytest.raises(MarlinError) as caught:
            operation()
        messages.append(str(caught.value))
    assert list(tmp_path.iterdir()) == [source]
    assert all("\n" not in message and url in message for message in messages), messages
    return messages


def test_wrong_secret(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG_SECRET)
    messages = failures(s3_url, tmp_path)
    assert all("check" in message and "credentials" in message for message in messages), messages
    assert "SignatureDoesNotMatch" in messages[0]
    assert "AWS_SECRET_ACCESS_KEY" in messages[0]
    assert not any(WRONG_SECRET in message or SECRET_KEY in message for message in messages)


def test_wrong_access_key(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(MarlinError, match=r"refused the credentials \(InvalidAccessKeyId\)"):
        open_store(s3_url).check()


def test_no_credentials(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    assert all("set AWS_ACCESS_KEY_ID" in message for message in failures(s3_url, tmp_path))


def test_no_such_profile(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(MarlinError, match="AWS_PROFILE names a profile that does not exist"):
        open_store(s3_url)


def test_unreachable_server(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{WRONG_SECRET}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    messages = failures(s3_url, tmp_path)
    assert all("cannot reach the S3 server at http://127.0.0.1:" in message for message in messages), messages
    assert not any(WRONG_SECRET in message for message in messages)


def test_an_endpoint_that_is_no_url(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage.local")
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL is not a URL"):
        open_store(s3_url)


@pytest.mark.usefixtures("s3_url")
def test_missing_bucket() -> None:
    store = open_store("s3://absent-bucket/prefix")
    for operation in (store.check, lambda: store.read("key"), lambda: store.exists("key"), lambda: list(store.list())):
        with pytest.raises(MarlinError, match="bucket 'absent-bucket' does not exist: create it"):
            operation()


def test_a_read_only_login_reads_but_fails_the_check(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.write("key", b"data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READ_ONLY_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READ_ONLY_SECRET_KEY)
    reader = open_store(s3.url)
    assert reader.read("key") == b"data"
    large = bytes(7 << 20)
    for operation in (
        *(reader.check, lambda: reader.write("key", b""), lambda: reader.write("key", large)),
        lambda: reader.delete("key"),
    ):
        with pytest.raises(MarlinError, match=r"access denied.* write"):
            operation()
    assert s3.read("key") == b"data"


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_found_out(s3: S3Store, header: str, caplog: Any) -> None:
    ignore(s3, header)
    assert not s3.supports_conditional()
    for operation in (lambda: s3.create("key", b""), lambda: s3.replace("key", b"", '"etag"')):
        with pytest.raises(ConditionalPutsIgnored, match="ignores conditional puts"):
            operation()
    s3.check()
    assert "ignores conditional puts" in caplog.text
    assert list(s3.list()) == []


@pytest.mark.parametrize("header", ["", "If-None-Match"])
def test_what_one_job_makes_is_made_once_on_any_server(s3: S3Store, header: str) -> None:
    ignore(s3, header)
    create_alone(s3, "key", b"first")
    with pytest.raises(AlreadyExists, match="/key exists already"):
        create_alone(s3, "key", b"second")
    assert s3.read("key") == b"first"


def test_a_server_that_does_not_implement_conditions_is_found_out(s3: S3Store) -> None:
    def refuse(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        if "If-None-Match" in request.headers:
            return answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        return None

    on(s3, "before-send.s3.PutObject", refuse)
    with pytest.raises(ConditionalPutsIgnored):
        s3.create("key", b"")


def test_a_create_whose_answer_is_lost_counts_as_won(s3: S3Store) -> None:
    assert s3.supports_conditional()
    lost = []

    def lose_first(request: AWSPreparedRequest, **_: object) -> None:
        if not lost:
            lost.append(URLLib3Session().send(request).status_code)
            raise ConnectionClosedError(endpoint_url="http://between")

    on(s3, "before-send.s3.PutObject", lose_first)
    s3.create("key", b"mine")
    assert lost == [200]
    lost.clear()
    with pytest.raises(AlreadyExists):
        s3.create("key", b"another's")
    assert s3.read("key") == b"mine"


def test_a_put_that_races_is_tried_again(s3: S3Store) -> None:
    assert s3.supports_conditional()
    answers = [answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")]
    on(s3, "before-send.s3.PutObject", lambda **_: answers.pop() if answers else None)
    s3.create("key", b"data")
    assert answers == []
    assert s3.read("key") == b"data"


def test_a_body_that_breaks_off_is_read_again(s3: S3Store) -> None:
    s3.write("key", b"0123456789")
    answers = [answer(200, b"012", Content_Length="10", ETag='"x"')]
    on(s3, "before-send.s3.GetObject", lambda **_: answers.pop() if answers else None)
    assert s3.read("key") == b"0123456789"
    assert answers == []


def test_ranges_go_the_quick_way(s3: S3Store) -> None:
    data = os.urandom(100_000)
    s3.write("a b/ü+%#?&=.txt", data)
    slow: list[object] = []
    on(s3, "before-send.s3.GetObject", lambda request, **_: slow.append(request))
    assert s3.read_range("a b/ü+%#?&=.txt", 5, 70_000) == data[5:70_005]
    assert slow == []


def test_damage_on_the_way_up_is_refused(s3: S3Store) -> None:
    def damage(request: AWSPreparedRequest, **_: object) -> None:
        request.body = b"1" + bytes(9)

    on(s3, "before-send.s3.PutObject", damage)
    with pytest.raises(MarlinError, match="S3 PutObject failed"):
        s3.write("key", bytes(10))
    assert not s3.exists("key")


def test_a_part_damaged_on_the_way_up_is_sent_again(s3: S3Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(data := os.urandom(20 << 20))
    sent: list[int] = []

    def damage_the_second(request: AWSPreparedRequest, **_: object) -> None:
        body = request.body.read()
        sent.append(len(body))
        request.body = bytes(len(body)) if len(sent) == 2 else body

    on(s3, "before-send.s3.UploadPart", damage_the_second)
    s3.write_file("key", source)
    assert s3.read("key") == data
    assert len(sent) > 3


def test_a_killed_upload_leaves_nothing_visible(s3: S3Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(20 << 20))
    code = f"""
import os, signal
from pathlib import Path
from pipeline.storage import open_store
store = open_store({s3.url!r})
parts = []
def kill_at_the_second(request, **_):
    parts.append(request)
    if len(parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
store.bucket.client.meta.events.register("before-send.s3.UploadPart", kill_at_the_second)
store.write_file("shards/big.tar", Path({str(source)!r}))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert result.returncode == -signal.SIGKILL
    assert list(s3.list()) == []


def test_a_full_disk_while_fetching_leaves_nothing(s3: S3Store, tmp_path: Path, monkeypatch: Any) -> None:
    s3.write("key", b"data")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MarlinError, match="copy: no space left"):
        s3.fetch("key", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_the_whole_bucket_is_a_store(s3: S3Store) -> None:
    s3.write("key", b"data")
    bucket, prefix = s3.url.removeprefix("s3://").split("/")
    whole = open_store(f"s3://{bucket}/")
    assert whole.url == f"s3://{bucket}"
    assert whole.read(f"{prefix}/key") == b"data"
    assert [info.key for info in whole.list(f"{prefix}/")] == [f"{prefix}/key"]
