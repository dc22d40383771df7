"""Publication on a real S3 server that fails, stalls, is cut off, killed: nothing damaged is ever published."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from faults import storm
from proxy import Fault, Proxy, Request, http_error, proxied
from s3_server import S3Server, run_s3_server

from pipeline.checkpoints import fetch_checkpoint, list_checkpoints, list_revisions
from pipeline.errors import MarlinError
from pipeline.storage import Store, Unavailable, open_store
from pipeline.storage.retry import keep_trying
from pipeline.storage.s3 import S3Store
from train.publish import Publisher
from train.retention import Retention
from train.world import World

LEAD = World(0, 1, 0, torch.device("cpu"))
MIB = 1 << 20
SIZES = {"model.safetensors": 20 * MIB, "generator/state.pt": 3 * MIB, "config.yaml": 1000}
OTHER_SIZES = {"generator/rank-1.pt": 9 * MIB}


@pytest.fixture
def between(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Proxy]]:
    """A run's folder behind a proxy."""
    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield open_store(s3_url), proxy


def saver(step: int, sizes: Mapping[str, int] = SIZES) -> Callable[[Path], None]:
    """Writes files whose bytes follow from the step."""

    def write(folder: Path) -> None:
        for name, size in sizes.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content(step, name, size))

    return write


def content(step: int, name: str, size: int) -> bytes:
    word = f"{step} {name} ".encode()
    return (word * (size // len(word) + 1))[:size]


def make_publisher(run: Store, scratch: Path, patience: float = 120) -> Publisher:
    return Publisher(run, scratch, LEAD, Retention(last=2), patience=patience)


def check_published(run: Store, folder: Path, sizes: Mapping[str, int] = SIZES) -> list[int]:
    """Fetch all that is published, each byte checked; the steps."""
    found = list_revisions(run)
    for checkpoint in found:
        fetch_checkpoint(run, checkpoint, folder)
        assert {entry.name for entry in checkpoint.files} == set(sizes)
        for name, size in sizes.items():
            assert (folder / name).read_bytes() == content(checkpoint.step, name, size)
    return [checkpoint.step for checkpoint in found]


def left_behind(run: Store) -> list[str]:
    """Files that no manifest names, and uploads that were never finished."""
    assert isinstance(run, S3Store)
    named = {f"{found.prefix}/{entry.name}" for found in list_revisions(run) for entry in found.files}
    keys = [item.key for item in run.list("checkpoints/") if not item.key.endswith(".manifest.json")]
    return [key for key in keys if key not in named] + unfinished(run)


def unfinished(run: Store) -> list[str]:
    assert isinstance(run, S3Store)
    uploads = run.bucket.client.list_multipart_uploads(Bucket=run.bucket.name, Prefix=run.prefix)
    return [upload["Key"] for upload in uploads.get("Uploads", [])]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.heavy), 2])
def test_a_storm_of_faults_damages_nothing(
    between: tuple[Store, Proxy], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    run, proxy = between
    faults, drawn = storm(ranks, share=0.25, stall=10), Counter[str]()
    proxy.fault = lambda request: (fault := faults(request), drawn.update([kind_of(fault)]))[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    undisturbed = open_store(run.url)
    monkeypatch.setattr("train.publish._shared_name", lambda world: "shared")
    worlds = [World(rank, ranks, rank, torch.device("cpu")) for rank in range(ranks)]
    publishers = [
        Publisher(run, tmp_path / f"scratch-{world.rank}", world, Retention(last=2), patience=120) for world in worlds
    ]
    saved = [SIZES, OTHER_SIZES][:ranks]
    whole = {name: size for sizes in saved for name, size in sizes.items()}

    def publish(step: int) -> None:
        for publisher, sizes in zip(publishers, saved, strict=True):
            publisher.publish(step, saver(step, sizes), {})

    for step in range(1, 5):
        publish(step)
        check_published(undisturbed, tmp_path / "during", whole)
    for publisher in publishers:
        publisher.wait()
    assert set(check_published(run, tmp_path / "through", whole)) >= {3, 4}
    proxy.fault = lambda request: None
    publish(5)
    for publisher in publishers:
        publisher.wait()
    assert check_published(undisturbed, tmp_path / "after", whole) == [4, 5]
    assert left_behind(undisturbed) == []
    assert all(drawn[kind] for kind in ("answer", "cut_after", "reset_after", "stall", "stall_answer", "close")), drawn


def kind_of(fault: Fault | None) -> str:
    """Name of what a fault does."""
    if fault is None:
        return "none"
    return next((name for name, value in vars(fault).items() if value), "close")


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_a_server_killed_in_mid_upload_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with run_s3_server(tmp_path / "s3") as server, proxied(server.endpoint) as proxy:
        for name, value in {**server.environment, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        run = open_store(f"s3://{server.bucket}/killed")
        publisher = make_publisher(run, tmp_path / "scratch")
        publisher.publish(1, saver(1), {})
        publisher.wait()
        begun, sent = threading.Event(), []

        def watch(request: Request) -> None:
            if request.method == "PUT" and request.path.endswith("model.safetensors"):
                sent.append(request)
                if len(sent) == parts:
                    begun.set()

        proxy.fault = watch
        publisher.publish(2, saver(2), {})
        assert begun.wait(60)
        server.kill()
        server.start_again()
        # The server answers some time before it finds its data again.
        after = keep_trying(lambda: check_published(run, tmp_path / "after"), "reading", 60, threading.Event())
        assert after in ([1], [1, 2])
        publisher.wait()
        assert check_published(run, tmp_path / "in the end") == [1, 2]
        assert left_behind(run) == []


@pytest.fixture
def impatient(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Proxy]]:
    """A run's folder behind a proxy, by a client that never tries again on its own."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield open_store(s3_url), proxy


def test_training_goes_on_while_storage_is_away(
    impatient: tuple[Store, Proxy], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, proxy = impatient
    assert run.supports_conditional()
    failures = threading.Semaphore(0)

    def away(request: Request) -> Fault:
        failures.release()
        return Fault()

    publisher = make_publisher(run, tmp_path / "scratch")
    proxy.fault = away
    publisher.publish(1, saver(1), {})
    for _ in range(6):
        assert failures.acquire(timeout=60)
    proxy.fault = lambda request: None
    publisher.wait()
    assert check_published(run, tmp_path / "published") == [1]
    assert "publishing checkpoint step-00000001: " in caplog.text
    assert "trying again for" in caplog.text


def test_storage_that_stays_away_ends_the_run_in_one_line(impatient: tuple[Store, Proxy], tmp_path: Path) -> None:
    run, proxy = impatient
    assert run.supports_conditional()
    proxy.fault = lambda request: Fault(http_error(503, "SlowDown"))
    publisher = make_publisher(run, tmp_path / "scratch", patience=1)
    publisher.publish(1, saver(1), {})
    message = (
        r"publishing checkpoint step-00000001: storage failed for 1 s: s3://.*/config\.yaml: S3 PutObject .*SlowDown"
    )
    with pytest.raises(Unavailable, match=message) as caught:
        publisher.wait()
    assert "\n" not in str(caught.value)
    proxy.fault = lambda request: None
    assert list_checkpoints(run) == []


def test_refused_credentials_are_not_tried_for_long(impatient: tuple[Store, Proxy], tmp_path: Path) -> None:
    run, proxy = impatient
    assert run.supports_conditional()
    proxy.fault = lambda request: Fault(http_error(403, "InvalidAccessKeyId"))
    publisher = make_publisher(run, tmp_path / "scratch", patience=100_000)
    publisher.publish(1, saver(1), {})
    with pytest.raises(MarlinError, match="refused the credentials"):
        publisher.wait()


def test_a_manifest_whose_answer_is_lost_is_one_checkpoint(impatient: tuple[Store, Proxy], tmp_path: Path) -> None:
    run, proxy = impatient
    assert run.supports_conditional()
    lost = []

    def lose(request: Request) -> Fault | None:
        if request.method == "PUT" and request.path.endswith("manifest.json") and not lost:
            lost.append(request)
            return Fault(cut_after=1)
        return None

    proxy.fault = lose
    publisher = make_publisher(run, tmp_path / "scratch")
    publisher.publish(1, saver(1), {})
    publisher.wait()
    assert len(lost) == 1
    assert check_published(run, tmp_path / "published") == [1]


def test_what_killed_starts_left_is_removed(s3_url: str, tmp_path: Path) -> None:
    run = open_store(s3_url)
    assert isinstance(run, S3Store)
    publisher = make_publisher(run, tmp_path / "scratch")
    publisher.publish(1, saver(1), {})
    publisher.wait()
    half, elsewhere = "checkpoints/step-00000002/killed/model.safetensors", "evals/step-00000001.r0/table.json"
    for key in (half, elsewhere):
        run.bucket.client.create_multipart_upload(Bucket=run.bucket.name, Key=f"{run.prefix}/{key}")
    run.write("checkpoints/step-00000002/killed/config.yaml", b"")
    run.write("checkpoints/step-00000002/killed/rank-00001.json", b"[]")
    run.write("checkpoints/step-00000003/doubtful/model.safetensors", b"weights")
    run.write("checkpoints/step-00000003.r0.manifest.json", b"damaged")
    assert len(unfinished(run)) == 2
    publisher = make_publisher(run, tmp_path / "next")
    publisher.remove_leftovers()
    publisher.wait()
    assert left_behind(run) == ["checkpoints/step-00000003/doubtful/model.safetensors", f"{run.prefix}/{elsewhere}"]
    assert check_published(run, tmp_path / "published") == [1]


def test_files_that_vanish_before_the_manifest_are_not_published(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_store(s3_url)
    write_file = S3Store.write_file

    def forget(self: S3Store, key: str, path: Path) -> None:
        write_file(self, key, path)
        if key.endswith("state.pt"):
            self.delete(key)

    monkeypatch.setattr(S3Store, "write_file", forget)
    publisher = make_publisher(run, tmp_path / "scratch")
    publisher.publish(1, saver(1), {})
    with pytest.raises(MarlinError, match=r"state\.pt was uploaded and is not there any more"):
        publisher.wait()
    assert list_checkpoints(run) == []
