"""Videos whose header has no length: measured when they are planned, and cut as any other."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import psutil
import pytest
from drawn_videos import counting_frames, number_of
from killed_runs import ROOT, wait_until, write_config
from odd_videos import Coding, encode, encode_live, keep_share

from pipeline.config.schema import Config, CorpusConfig, PreprocessConfig, TrainConfig
from pipeline.storage import open_store
from preprocess.corpora import Source, list_corpus, open_media
from preprocess.dataset.plan import Piece
from preprocess.dataset.planning import extend_plan
from preprocess.decode.length import measured_seconds
from preprocess.decode.video import probe, read_frames

FRAMES = 150
GROUPS = {"g": "48"}
VP9 = Coding("libvpx-vp9", options={**GROUPS, "b": "2M", "deadline": "realtime"})
HEVC = Coding("libx265", options={"x265-params": "keyint=48:log-level=none"})

Make = Callable[[Path], Path]

MAKERS: dict[str, Make] = {
    "live.mkv": lambda path: encode_live(path, counting_frames(FRAMES), Coding(options=GROUPS)),
    "live.webm": lambda path: encode_live(path, counting_frames(FRAMES), VP9, "webm"),
    "live.wmv": lambda path: encode_live(path, counting_frames(FRAMES), Coding("mpeg4", options=GROUPS), "asf"),
    "bare.h264": lambda path: encode(path, counting_frames(FRAMES), Coding(options={**GROUPS, "bf": "2"})),
    "bare.hevc": lambda path: encode(path, counting_frames(FRAMES), HEVC),
    "bare.mjpeg": lambda path: encode(path, counting_frames(FRAMES), Coding("mjpeg", "yuvj420p")),
    "bare.m2v": lambda path: encode(
        path, counting_frames(FRAMES), Coding("mpeg2video", options={**GROUPS, "bf": "2"}), "mpeg2video"
    ),
}
"""Videos without a length, by name."""

KNOWN: dict[str, Make] = {
    "live.ts": lambda path: encode_live(path, counting_frames(FRAMES), Coding(options=GROUPS), "mpegts"),
    "live.flv": lambda path: encode_live(path, counting_frames(FRAMES), Coding(options=GROUPS), "flv"),
    "live.mp4": lambda path: encode_live(
        path, counting_frames(FRAMES), Coding(options=GROUPS), "mp4", movflags="frag_keyframe+empty_moov"
    ),
}
"""Videos written live whose length FFmpeg finds itself."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("live")
    for name, make in {**MAKERS, **KNOWN}.items():
        make(folder / name)
    return folder


def _planned(corpus: Path | str, out: Path, unit_seconds: int) -> dict[str, list[Piece]]:
    """Pieces of each source of a corpus."""
    cfg = Config(
        corpus=CorpusConfig(path=str(corpus)),
        preprocess=PreprocessConfig(unit_seconds=unit_seconds),
        train=TrainConfig(steps=1),
    )
    plan, _ = extend_plan(open_store(str(out)), cfg, list_corpus(cfg.corpus), {"config": {}, "models": []}, False)
    pieces: dict[str, list[Piece]] = {}
    for unit in plan.units:
        for piece in unit.pieces:
            pieces.setdefault(piece.source.name, []).append(piece)
    return pieces


@pytest.mark.parametrize("name", MAKERS)
def test_they_have_none_and_are_measured_as_frames_are_counted(videos: Path, name: str) -> None:
    assert probe(videos / name).seconds == 0
    times = [frame.time for frame in read_frames(videos / name)]
    source = Source(name, name, name)
    measured = open_media("folder", str(videos)).measure(source, Event())
    assert measured == pytest.approx(times[-1] + (times[-1] - times[-2]), abs=0.02)


def test_they_are_cut_into_units_that_miss_no_frame(videos: Path, tmp_path: Path) -> None:
    planned = _planned(videos, tmp_path / "out", 2)
    assert sorted(planned) == sorted([*MAKERS, *KNOWN])
    for name, pieces in planned.items():
        assert len(pieces) == 3, name
        assert all(piece.seconds <= 2 for piece in pieces), name
        shown = [number_of(frame.rgb) for piece in pieces for frame in read_frames(videos / name, piece.span)]
        assert shown == list(range(FRAMES)), name


def test_in_a_bucket_too(videos: Path, tmp_path: Path, s3_url: str) -> None:
    raw = open_store(f"{s3_url}/raw")
    for name in MAKERS:
        raw.write_file(name, videos / name)
    local, remote = _planned(videos, tmp_path / "a", 2), _planned(f"{s3_url}/raw", tmp_path / "b", 2)
    assert remote == {name: local[name] for name in MAKERS}


class _Counting:
    """A stream that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.seek, self.tell, self.bytes = self.file.seek, self.file.tell, 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bytes += len(data)
        return data


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of Matroska, written live, of some 9 MiB."""
    frames = np.random.default_rng(0).integers(0, 255, (180, 192, 256, 3), dtype=np.uint8)
    path = encode_live(tmp_path_factory.mktemp("noise") / "noise.mkv", frames)
    assert path.stat().st_size > 8 << 20
    return path


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_of_a_long_matroska_file_the_ends_are_enough_also_of_one_that_breaks_off(
    noise: Path, tmp_path: Path, share: float
) -> None:
    path = tmp_path / "noise.mkv"
    path.write_bytes(noise.read_bytes())
    keep_share(path, share)
    stream = _Counting(path)
    assert measured_seconds(stream, Event()) == pytest.approx(6 * share, abs=0.1)
    assert stream.bytes < path.stat().st_size / 2


def test_clusters_that_are_too_far_apart_are_gone_through(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.decode.length._TAILS", (1000,))
    stream = _Counting(noise)
    assert measured_seconds(stream, Event()) == pytest.approx(6, abs=0.01)
    assert stream.bytes > noise.stat().st_size


@contextlib.contextmanager
def _planning(config: Path, source: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, once it has this source open."""
    command = [sys.executable, "-m", "pipeline.cli", "preprocess", "-c", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: str(source) in _open_files(process.pid), 120)
        yield process
    finally:
        process.kill()
        process.communicate()


def _open_files(pid: int) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return [file.path for file in psutil.Process(pid).open_files()]
    return []


@pytest.mark.slow
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_it_measures_it_leaves_in_order(videos: Path, tmp_path: Path, number: signal.Signals) -> None:
    endless = tmp_path / "raw/endless.mjpeg"
    endless.parent.mkdir()
    endless.write_bytes((videos / "bare.mjpeg").read_bytes())
    with endless.open("r+b") as file:
        file.truncate(1 << 42)  # zeros that take no space, and hours to go through
    with _planning(write_config(tmp_path / "c.yaml", endless.parent, tmp_path / "root"), endless) as process:
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 75
        assert process.stderr
        assert "the same command continues" in process.stderr.read().strip().splitlines()[-1]
    assert not (tmp_path / "root/datasets/faces/plan.json").exists()
