"""Runs that are killed or stopped at any moment, and continued: the dataset is that of an undisturbed run."""

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from killed_runs import content, make_corpus, running, title, wait_until, write_config

from preprocess.cluster.scratch import sweep_scratch

pytestmark = pytest.mark.slow

CLIPS, FRAMES = 6, 40
LONGEST = 300.0


@dataclass(frozen=True)
class Bench:
    """A corpus and the dataset that an undisturbed run makes of it, in `seconds`."""

    folder: Path
    corpus: Path
    expected: dict[str, str]
    seconds: float


@pytest.fixture(scope="module")
def bench(
    samples: dict[str, Path], models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Six clips, and the undisturbed run over them."""
    folder = tmp_path_factory.mktemp("killed")
    corpus = make_corpus(folder / "raw", samples["WolfgangLanger_Pexels"], CLIPS, FRAMES)
    # A short path: Ray keeps sockets below it.
    temp = Path(tempfile.mkdtemp(prefix="k-"))
    start = time.monotonic()
    with running(write_config(folder / "whole.yaml", corpus, folder / "whole"), temp) as run:
        assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()
    seconds = time.monotonic() - start
    expected = content(folder / "whole/datasets/faces")
    assert sum(name.startswith("units/") for name in expected) == CLIPS + 1
    assert sum(name.startswith("shards/") for name in expected) == CLIPS
    yield Bench(folder, corpus, expected, seconds)
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture
def temp() -> Iterator[Path]:
    """A folder of temporary files with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="k-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Killer:
    """Kills runs at random moments, whole ones and workers in turn, until it has done so `left` times."""

    left: int
    chance: random.Random
    killed: list[str] = field(default_factory=list)

    def run(self, config: Path, temp: Path, seconds: float) -> bool:
        """Runs once; whether the run came to its end."""
        with running(config, temp) as run:
            while True:
                ended = wait_until(lambda: run.process.poll() is not None, self._moment(seconds))
                if ended or not self.left:
                    assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()
                    return True
                if self._kill_one(run):
                    return False

    def _moment(self, seconds: float) -> float:
        return self.chance.uniform(0.3, seconds) if self.left else LONGEST

    def _kill_one(self, run) -> bool:
        """Kills a worker, or the run; whether it was the run."""
        if len(self.killed) % 2:
            if not wait_until(lambda: run.workers() or run.process.poll() is not None, LONGEST) or not run.workers():
                return False
            self._count("worker")
            self.chance.choice(sorted(run.workers(), key=lambda process: process.pid)).kill()
            return False
        self._count("run")
        run.signal_group(signal.SIGKILL)
        run.process.wait()
        return True

    def _count(self, what: str) -> None:
        self.killed.append(what)
        self.left -= 1


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.heavy)])
def test_killed_at_random_moments_it_continues_to_the_same_bytes(bench: Bench, temp: Path, kills: int) -> None:
    killer = _Killer(kills, random.Random(kills))
    attempt = 0
    while killer.left:
        attempt += 1
        root = bench.folder / f"killed {kills} {attempt}"
        config = write_config(bench.folder / "killed.yaml", bench.corpus, root)
        while not killer.run(config, temp, bench.seconds):
            pass
        assert content(root / "datasets/faces") == bench.expected, killer.killed
    assert len(killer.killed) == kills


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_leaves_in_order_and_continues(
    bench: Bench, temp: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bench.folder / f"stopped {number.name}"
    config = write_config(bench.folder / "stopped.yaml", bench.corpus, root)
    units = root / "datasets/faces/units"
    with running(config, temp) as run:
        assert wait_until(lambda: units.is_dir() and any(units.glob("*.json")), LONGEST)
        processes = run.descendants()
        if number == signal.SIGINT:
            run.signal_group(number)  # Ctrl-C reaches every process of the terminal
        else:
            run.process.send_signal(number)
        assert run.process.wait(60) == 75, run.process.stderr and run.process.stderr.read()
        assert run.process.stderr
        last = run.process.stderr.read().strip().splitlines()[-1]
        assert "the same command continues" in last
        assert last.startswith("marlin: ")
        assert len(processes) > 4
        assert wait_until(lambda: not any(map(_alive, processes)), 30), [p for p in processes if _alive(p)]
    assert not (root / "datasets/faces/dataset.json").exists()
    assert len(list(units.glob("*.json"))) <= CLIPS

    with running(config, temp) as run:
        assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()

    assert content(root / "datasets/faces") == bench.expected
    # Workers that were ended last may have left their folders to whoever comes next.
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    sweep_scratch()
    assert [path.name for path in temp.iterdir() if path.name.startswith("marlin")] == []


def test_stopped_while_ray_starts_it_leaves_in_order(bench: Bench, temp: Path) -> None:
    config = write_config(bench.folder / "early.yaml", bench.corpus, bench.folder / "stopped early")
    with running(config, temp) as run:
        assert wait_until(lambda: any("gcs_server" in title(process) for process in run.descendants()), LONGEST)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 75
        assert run.process.stderr
        assert run.process.stderr.read().strip() == "marlin: stopped by a signal: the same command continues"
        assert wait_until(lambda: not any(map(_alive, run.descendants())), 30)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_source_that_kills_its_worker_is_found_among_those_of_its_unit(
    bench: Bench, samples: dict[str, Path], temp: Path
) -> None:
    corpus = bench.folder / "with poison"
    shutil.copytree(bench.corpus, corpus)
    poison = corpus / "clip 2 poison.mp4"
    shutil.copy(bench.corpus / "clip 2.mp4", poison)
    root = bench.folder / "poisoned"
    config = write_config(bench.folder / "poisoned.yaml", corpus, root, unit_sources=4)
    kills = 0
    with running(config, temp) as run:
        while run.process.poll() is None:
            for worker in run.workers():
                if _reads(worker, poison):
                    worker.kill()
                    kills += 1
            time.sleep(0.01)
        assert run.process.wait() == 0, run.process.stderr and run.process.stderr.read()
    manifests = [json.loads(path.read_bytes()) for path in (root / "datasets/faces/units").glob("*.json")]
    quarantined = {entry["source"]: entry["reason"] for unit in manifests for entry in unit["quarantined"]}
    assert quarantined == {"bad.mp4": "unreadable", poison.name: "worker-died"}
    assert {entry["source"] for unit in manifests for entry in unit["sources"]} == {
        f"clip {number}.mp4" for number in range(CLIPS)
    }
    assert kills >= 8


def _reads(process: psutil.Process, file: Path) -> bool:
    try:
        return any(opened.path == str(file) for opened in process.open_files())
    except psutil.Error:
        return False
