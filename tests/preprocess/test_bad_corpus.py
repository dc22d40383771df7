"""A corpus with everything in it that real ones hold: good clips come out, bad sources are named, nothing stops."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_corpus import BAD, GOOD, PLAIN, VANISHES, Case, build
from s3_server import S3Server

from pipeline.cli import main
from pipeline.config.schema import Config, CorpusConfig, DataConfig, PreprocessConfig, StorageConfig, TrainConfig
from pipeline.dataset import Dataset, load_dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store, open_store
from preprocess.dataset.manifests import read_manifest
from preprocess.decode.video import read_frames
from preprocess.stage import Summary, run_preprocess

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models")]


@dataclass(frozen=True)
class Outcome:
    """The dataset that was made of the corpus, and the cases that were in it."""

    cfg: Config
    cases: list[Case]
    summary: Summary
    dataset: Dataset
    store: Store
    quarantine: dict[str, tuple[str, str]]

    def frames(self, source: str) -> list[np.ndarray]:
        """The stored crops of a source, in order."""
        return [
            cv2.imdecode(np.frombuffer(self.store.read_range(sample.shard, *sample.parts[name]), np.uint8), 1)
            for sample in sorted(self.dataset.samples, key=lambda sample: sample.start)
            if sample.source == source
            for name in sorted(part for part in sample.parts if part.endswith(".jpg"))
        ]


def _process(corpus: str, root: str, cases: list[Case], vanish: Callable[[], None]) -> Outcome:
    cfg = Config(
        corpus=CorpusConfig(path=corpus, name="odd"),
        storage=StorageConfig(root=root),
        preprocess=PreprocessConfig(clip_frames=16, min_frames=8, max_failed=1.0, unit_sources=4, workers=2),
        data=DataConfig(frames=4, stride=1),
        train=TrainConfig(steps=1),
    )
    store = dataset_store(cfg)
    with _when_planned(store, vanish):
        summary = run_preprocess(cfg, False)
    manifests = [read_manifest(store, item.key) for item in store.list("units/")]
    quarantine = {
        entry["source"]: (entry["reason"], entry["detail"])
        for manifest in manifests
        for entry in manifest["quarantined"]
    }
    return Outcome(cfg, cases, summary, load_dataset(store), store, quarantine)


@contextlib.contextmanager
def _when_planned(store: Store, act: Callable[[], None]) -> Iterator[None]:
    """Does something once the plan is there; the cluster still has to start then, which takes seconds."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not store.exists("plan.json") and time.monotonic() < deadline:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


@pytest.fixture(scope="module")
def raw(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases in a folder."""
    folder = tmp_path_factory.mktemp("odd") / "raw"
    build(folder, np.stack([frame.rgb for frame in read_frames(face_clip)])[:16], GOOD + BAD)
    (folder / os.fsdecode(b"caf\xe9 in latin-1.mp4")).write_bytes((folder / PLAIN).read_bytes())
    return folder


@pytest.fixture(scope="module")
def from_folder(raw: Path) -> Outcome:
    """The corpus read from its folder."""
    return _process(str(raw), str(raw.parent / "out"), GOOD + BAD, (raw / VANISHES).unlink)


@pytest.fixture(scope="module")
def from_bucket(from_folder: Outcome, raw: Path, s3_server: S3Server) -> Iterator[Outcome]:
    """The corpus read from a bucket, as far as object storage can hold it, and the dataset written there."""
    cases = [case for case in GOOD + BAD if case.in_bucket]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        url = f"s3://{s3_server.bucket}/odd"
        bucket = open_store(f"{url}/raw")
        for case in cases:
            path = raw / case.name
            bucket.write_file(case.name, path if path.exists() else raw / PLAIN)
        yield _process(f"{url}/raw", f"{url}/out", cases, lambda: bucket.delete(VANISHES))


@pytest.fixture(scope="module", params=["folder", "bucket"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    """Either."""
    return request.getfixturevalue(f"from_{request.param}")


def test_there_are_enough_kinds() -> None:
    assert len(BAD) + len(GOOD) >= 50
    assert len({case.name for case in BAD + GOOD}) == len(BAD) + len(GOOD)


def test_every_good_clip_is_in(outcome: Outcome) -> None:
    frames: Counter[str] = Counter()
    for sample in outcome.dataset.samples:
        frames[sample.source] += sample.frames
    assert dict(frames) == {case.name: case.frames for case in outcome.cases if case.frames}


def test_every_bad_source_is_in_quarantine_with_its_reason(outcome: Outcome) -> None:
    expected = {case.name: case.reason for case in outcome.cases if case.reason}
    assert {name: reason for name, (reason, _) in outcome.quarantine.items()} == expected
    assert dict(outcome.summary.quarantine) == dict(Counter(expected.values()))
    assert outcome.summary.counts["sources"] == len(outcome.cases)
    for name, (_, detail) in outcome.quarantine.items():
        assert detail, name
        assert "\n" not in detail
        assert "Error" not in detail, f"{name}: an exception's name is no explanation: {detail}"
        assert "/tmp" not in detail, f"{name}: names a place that is gone: {detail}"


def test_odd_videos_show_the_same_face_as_the_plain_one(from_folder: Outcome) -> None:
    plain = np.stack(from_folder.frames(PLAIN)).astype(int)
    differences = {}
    for case in from_folder.cases:
        if case.frames and case.differs is not None:
            crops = np.stack(from_folder.frames(case.name)[: case.frames] or [np.zeros_like(plain[0])])
            expected = plain[case.first : case.first + len(crops)]
            differences[case.name] = round(float(np.abs(crops - expected).mean()), 1)
    allowed = {case.name: case.differs for case in from_folder.cases if case.differs is not None}
    assert {name: value for name, value in differences.items() if value > allowed[name]} == {}
    # Another face, or the same one on its side, is far off.
    assert np.abs(plain - np.rot90(plain, axes=(1, 2))).mean() > 40


def test_the_dataset_is_as_committed(outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(outcome.cfg.model_dump_json())
    assert main(["dataset", "verify", "-c", str(tmp_path / "odd.yaml")]) == 0


def test_the_same_comes_from_a_bucket(from_folder: Outcome, from_bucket: Outcome) -> None:
    for case in GOOD:
        if case.in_bucket:
            np.testing.assert_array_equal(from_folder.frames(case.name), from_bucket.frames(case.name))
