"""Face frames a second: two Ray workers beside one plain process, and beside the bare networks.

    python -m benchmarks.preprocess.rate --hair PATH/hair_segmentation.onnx

Peer (a) does the same work in one process and one thread, source after source, frame by frame: same networks, same
detection cadence, same decoding and writing. Bound (b) is the rate of workers who do nothing but run the networks:
the time that their calls take inside their runtimes, nothing before, between or after them. It is measured in the
workers while they work, because quotients of different minutes are worth nothing where the machine's speed drifts; how
near the workers come to it is the share of their time that they spend in there. `idle bound` is the same of peer (a),
times the workers.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.results import publish
from pipeline.config.schema import Config
from pipeline.layout import dataset_store
from preprocess import cutout
from preprocess.cluster import worker as ray_worker
from preprocess.corpora import list_corpus, open_places
from preprocess.corpora.clip import Clip
from preprocess.dataset import sample, shards
from preprocess.dataset.plan import Plan, Unit
from preprocess.dataset.planning import extend_plan
from preprocess.dataset.settings import content_settings
from preprocess.faces import mesh
from preprocess.models import Networks, load_networks, model_files
from preprocess.quarantine import BadSource
from preprocess.unit import UnitProcessor

BARE = "bare networks"


class Meter:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Any:
        """The function, measured."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return call

    def frames(self, original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """A generator of frames, each step measured as decoding."""

        def generate(*args: Any) -> Iterator[Any]:
            frames = original(*args)
            step = self.timed("decode", lambda: next(frames, None))
            while (frame := step()) is not None:
                yield frame

        return generate


def _plan(cfg: Config) -> Plan:
    plan, _ = extend_plan(
        dataset_store(cfg), cfg, list_corpus(cfg.corpus), content_settings(cfg.preprocess), progress=False
    )
    return plan


def _bare(meter: Meter) -> list[tuple[Any, str, Any]]:
    """Where the runtimes of the networks are entered: place, name, and what is to stand there instead."""
    return [
        (onnxruntime.InferenceSession, "run", meter.timed(BARE, onnxruntime.InferenceSession.run)),
        (mesh, "_read_net", lambda path, read=mesh._read_net: _Net(read(path), meter)),
    ]


def alone(cfg: Config) -> tuple[int, float, Meter]:
    """Peer (a): face frames, wall seconds, and where they went."""
    meter = Meter()
    patches = [
        *_bare(meter),
        (Clip, "frames", meter.frames(Clip.frames)),
        (cutout, "extract", meter.timed("crop", cutout.extract)),
        (sample.SampleBuilder, "add", meter.timed("encode frames", sample.SampleBuilder.add)),
        (sample.SampleBuilder, "parts", meter.timed("encode maps", sample.SampleBuilder.parts)),
        (shards.ShardWriter, "add", meter.timed("write", shards.ShardWriter.add)),
    ]
    saved = [(place, name, getattr(place, name)) for place, name, _ in patches]
    plan = _plan(cfg)
    try:
        for place, name, function in patches:
            setattr(place, name, function)
        networks = load_networks(cfg.preprocess, model_files(cfg.preprocess))
        measured = replace(
            networks,
            detector=meter.timed("detect", networks.detector),
            mesh=meter.timed("mesh", networks.mesh),
            parser=_Parser(networks, meter),
        )
        processor = UnitProcessor(cfg.preprocess, dataset_store(cfg), measured, lru_cache(open_places))
        start = time.perf_counter()
        manifests = [processor.process(unit) for unit in plan.units]
        seconds = time.perf_counter() - start
    finally:
        for place, name, function in saved:
            setattr(place, name, function)
    return _faces(manifests), seconds, meter


class _Net:
    """One of OpenCV's networks, its forward passes measured."""

    def __init__(self, net: Any, meter: Meter) -> None:
        self.setInput, self.getLayerNames = net.setInput, net.getLayerNames
        self.forward = meter.timed(BARE, net.forward)


class _Parser:
    """The parser, measured."""

    def __init__(self, networks: Networks, meter: Meter) -> None:
        self.name = networks.parser.name
        self._call = meter.timed("parse", networks.parser)

    def __call__(self, pictures: Any, points: Any) -> Any:
        return self._call(pictures, points)


def _faces(manifests: list[dict[str, Any]]) -> int:
    return sum(entry["frames"] for manifest in manifests for entry in manifest["samples"])


class _MeteredWorker(ray_worker._Worker):
    """A worker that adds to each manifest when it worked on the unit, and for how long it was inside networks."""

    def __init__(self, cfg: Config, networks: Any | None) -> None:
        self._meter = Meter()
        for place, name, function in _bare(self._meter):
            setattr(place, name, function)
        super().__init__(cfg, networks)

    def process(self, unit: Unit, bad: Mapping[int, BadSource]) -> dict[str, Any]:
        self._meter.seconds.clear()
        begin = time.monotonic()
        manifest = super().process(unit, bad)
        times = {"begin": begin, "end": time.monotonic(), "bare": self._meter.seconds[BARE]}
        return {**manifest, "worker": os.getpid(), **times}


def _share_of_bound(manifests: list[dict[str, Any]]) -> float:
    """Time inside networks over time from a worker's first unit to its last, of all workers."""
    spans = []
    for pid in {manifest["worker"] for manifest in manifests}:
        own = [manifest for manifest in manifests if manifest["worker"] == pid]
        spans.append(max(unit["end"] for unit in own) - min(unit["begin"] for unit in own))
    return float(sum(manifest["bare"] for manifest in manifests) / sum(spans))


def together(cfg: Config, workers: int) -> tuple[int, float, float, float]:
    """Ours: face frames, wall seconds of the whole stage, face frames a second and share of (b) once all are busy."""
    begin = time.perf_counter()
    plan = _plan(cfg)
    arrivals: list[tuple[float, int]] = []
    manifests: list[dict[str, Any]] = []
    ray_worker._Worker = _MeteredWorker  # type: ignore[misc]
    with ray_worker.cluster(cfg.preprocess):
        for manifest in ray_worker.process_units(cfg, dataset_store(cfg), list(plan.units), workers):
            manifests.append(manifest)
            arrivals.append((time.perf_counter(), _faces([manifest])))
        end = time.perf_counter()
    # Between the moment when each has ended a unit and the one when the first finds none left, all are busy.
    busy = arrivals[workers - 1 : len(arrivals) - workers + 1]
    steady = sum(faces for _, faces in busy[1:]) / (busy[-1][0] - busy[0][0])
    return _faces(manifests), end - begin, steady, _share_of_bound(manifests)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hair", type=Path, help="hair segmentation ONNX (docs/model-files.md)")
    parser.add_argument("--copies", type=int, default=2, help="copies of each sample video (default: 2)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as folder:
        corpus = make_corpus(Path(folder, "in"), args.copies)
        models = {"hair": str(args.hair.absolute())} if args.hair else {}
        for number in range(args.rounds):
            # Short units, so that the two workers end at nearly the same time; the peer works on the same ones.
            cfg = [
                make_config(
                    corpus, Path(folder, f"{who}{number}"), models=models, workers=args.workers, unit_seconds=10
                )
                for who in ("alone", "together")
            ]
            faces, seconds, meter = alone(cfg[0])
            both, whole, steady, share = together(cfg[1], args.workers)
            if both != faces:
                raise RuntimeError(f"{faces} face frames alone, {both} together")
            rows.append(
                {
                    "alone_faces_per_s": faces / seconds,
                    "whole_faces_per_s": faces / whole,
                    "steady_faces_per_s": steady,
                    "bound_faces_per_s": steady / share,
                    "idle bound_faces_per_s": args.workers * faces / meter.seconds[BARE],
                    **{f"{name} ms": 1e3 * spent / faces for name, spent in meter.seconds.items()},
                    "all ms": 1e3 * seconds / faces,
                }
            )
            print({key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
    figures: dict[str, Any] = {"face frames": faces, "rounds": args.rounds, "workers": args.workers}
    figures |= {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    compared = (("whole", "alone"), ("steady", "alone"), ("steady", "bound"), ("steady", "idle bound"))
    for name, over in compared:
        ratios = [row[f"{name}_faces_per_s"] / row[f"{over}_faces_per_s"] for row in rows]
        figures[f"{name} / {over}"] = round(statistics.median(ratios), 3)
        figures[f"{name} / {over} (all rounds)"] = [round(ratio, 3) for ratio in ratios]
    publish("preprocess-rate", "python -m benchmarks.preprocess.rate --hair PATH", figures, args.output)


if __name__ == "__main__":
    main()
