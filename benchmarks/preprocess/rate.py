"""Face frames a second: two Ray workers beside one plain process, and beside the bare networks.

    python -m benchmarks.preprocess.rate --hair PATH/hair_segmentation.onnx

Peer (a) does the same work in one process and one thread, source after source, frame by frame: same networks, same
detection cadence, same decoding and writing. Bound (b) is the time that the networks alone take for the calls that (a)
made, with as many processes running them at once as there are workers. Rounds alternate, so a busy machine hits all.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.results import publish
from pipeline.assets import pull_samples
from pipeline.config.schema import Config, PreprocessConfig
from pipeline.layout import dataset_store
from preprocess import cutout
from preprocess.cluster.worker import cluster, process_units
from preprocess.corpora import list_corpus, open_media
from preprocess.corpora.clip import Clip
from preprocess.dataset import sample, shards
from preprocess.dataset.plan import Plan
from preprocess.dataset.planning import extend_plan
from preprocess.dataset.settings import content_settings
from preprocess.decode.video import read_frames
from preprocess.faces.crop import extract
from preprocess.faces.detect import Detector
from preprocess.models import Networks, load_networks, model_files
from preprocess.sessions import onnx_session
from preprocess.unit import UnitProcessor

BARE_CALLS = 60
BARE_SECONDS = 6.0


class Meter:
    """Seconds and calls of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, name: str, function: Callable[..., Any], count: Callable[..., int] = lambda *_: 1) -> Any:
        """The function, measured; `count` tells how many calls of the network one call of it is."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start
                self.calls[name] += count(*args)

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


def _networks(cfg: Config) -> Networks:
    return load_networks(cfg.preprocess, model_files(cfg.preprocess))


def alone(cfg: Config, networks: Networks) -> tuple[int, float, Meter]:
    """Peer (a): face frames, wall seconds, and where they went."""
    meter = Meter()
    measured = replace(
        networks,
        detector=meter.timed("detect", networks.detector),
        mesh=meter.timed("mesh", networks.mesh),
        parser=_Parser(networks, meter),
    )
    patches = [
        (Clip, "frames", meter.frames(Clip.frames)),
        (cutout, "extract", meter.timed("crop", cutout.extract)),
        (sample.SampleBuilder, "add", meter.timed("encode frames", sample.SampleBuilder.add)),
        (sample.SampleBuilder, "parts", meter.timed("encode maps", sample.SampleBuilder.parts)),
        (shards.ShardWriter, "add", meter.timed("write", shards.ShardWriter.add)),
    ]
    saved = [(place, name, getattr(place, name)) for place, name, _ in patches]
    plan = _plan(cfg)
    processor = UnitProcessor(cfg.preprocess, dataset_store(cfg), measured, lru_cache(open_media))
    try:
        for place, name, function in patches:
            setattr(place, name, function)
        start = time.perf_counter()
        manifests = [processor.process(unit) for unit in plan.units]
        seconds = time.perf_counter() - start
    finally:
        for place, name, function in saved:
            setattr(place, name, function)
    return _faces(manifests), seconds, meter


class _Parser:
    """The parser, measured by pictures."""

    def __init__(self, networks: Networks, meter: Meter) -> None:
        self.name = networks.parser.name
        self._call = meter.timed("parse", networks.parser, count=lambda pictures, points: len(pictures))

    def __call__(self, pictures: Any, points: Any) -> Any:
        return self._call(pictures, points)


def _faces(manifests: list[dict[str, Any]]) -> int:
    return sum(entry["frames"] for manifest in manifests for entry in manifest["samples"])


def together(cfg: Config, workers: int) -> tuple[int, float, float]:
    """Ours: face frames, wall seconds of the whole stage, and face frames a second once all workers are busy."""
    begin = time.perf_counter()
    plan = _plan(cfg)
    arrivals: list[tuple[float, int]] = []
    manifests = []
    with cluster(cfg.preprocess):
        for manifest in process_units(cfg, dataset_store(cfg), list(plan.units), workers):
            manifests.append(manifest)
            arrivals.append((time.perf_counter(), _faces([manifest])))
        end = time.perf_counter()
    first = arrivals[workers - 1][0]
    steady = sum(faces for _, faces in arrivals[workers:]) / (arrivals[-1][0] - first)
    return _faces(manifests), end - begin, steady


def bare(cfg: Config, processes: int) -> dict[str, float]:
    """Bound (b): seconds of one call of each network, with `processes` of them running theirs at once."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        measured = pool.map(_bare, [cfg] * processes, chunksize=1)
    return {name: statistics.mean(one[name] for one in measured) for name in measured[0]}


def _bare(cfg: Config) -> dict[str, float]:
    cv2.setNumThreads(1)
    calls = _bare_calls(cfg)
    for call in calls.values():
        call()
    share = BARE_SECONDS / len(calls)
    result = {}
    for name, call in calls.items():
        times: list[float] = []
        stop = time.perf_counter() + share
        while len(times) < BARE_CALLS and time.perf_counter() < stop:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        result[name] = statistics.median(times)
    return result


def _bare_calls(cfg: Config) -> dict[str, Callable[[], Any]]:
    """A call of each network on a real picture at its input's size, nothing around it."""
    # What a network sees matters: the hair network takes twice as long on a head as on a black square.
    head = _a_head()
    calls: dict[str, Callable[[], Any]] = {}
    for file in model_files(cfg.preprocess):
        if file.path.suffix == ".onnx":
            session = onnx_session(file.path, file.name, "cpu")
            entry = session.get_inputs()[0]
            depth, side = entry.shape[1], entry.shape[2] if isinstance(entry.shape[2], int) else 640
            feed = {entry.name: _blob(head, depth, side)}
            calls[file.name] = partial(session.run, None, feed)
        else:
            net = cv2.dnn.readNetFromTFLite(str(file.path), cv2.dnn.ENGINE_CLASSIC)
            side = {"face_landmark": 192, "selfie_segmentation": 256}[file.name]
            calls[file.name] = partial(_forward, net, _blob(head, 3, side))
    return calls


def _forward(net: Any, blob: Any) -> Any:
    net.setInput(blob)  # without a new input the network would return what it has
    return net.forward()


def _a_head() -> Any:
    video = pull_samples(progress=False)["WolfgangLanger_Pexels"]
    frame = next(iter(read_frames(video)))
    [face, *_] = _detector()(frame.rgb)
    square = np.array([*(face.box[:2] + face.box[2:]) / 2, 2 * max(face.box[2:] - face.box[:2])])
    return extract(frame.rgb, square, 512)


def _detector() -> Detector:
    return Detector(model_files(PreprocessConfig())[0].path, 0.5)


def _blob(rgb: Any, depth: int, side: int) -> Any:
    blob = np.zeros((1, depth, side, side), np.float32)
    blob[0, :3] = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) / np.float32(255)
    return blob


def bound(networks: dict[str, float], meter: Meter) -> float:
    """Seconds of bare networks for all calls that were made."""
    calls = {"scrfd": meter.calls["detect"], "face_landmark": meter.calls["mesh"]}
    return sum(seconds * calls.get(name, meter.calls["parse"]) for name, seconds in networks.items())


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
        networks = _networks(make_config(corpus, Path(folder), models=models))
        for number in range(args.rounds):
            # Short units, so that the two workers end at nearly the same time; the peer works on the same ones.
            cfg = [
                make_config(corpus, Path(folder, f"{who}{number}"), models=models, workers=args.workers, unit_seconds=5)
                for who in ("alone", "together")
            ]
            faces, seconds, meter = alone(cfg[0], networks)
            both, whole, steady = together(cfg[1], args.workers)
            if both != faces:
                raise RuntimeError(f"{faces} face frames alone, {both} together")
            networks_alone = bound(bare(cfg[0], args.workers), meter)
            rows.append(
                {
                    "alone_faces_per_s": faces / seconds,
                    "whole_faces_per_s": faces / whole,
                    "steady_faces_per_s": steady,
                    "bound_faces_per_s": args.workers * faces / networks_alone,
                    **{f"{name} ms": 1e3 * spent / faces for name, spent in meter.seconds.items()},
                    "bare networks ms": 1e3 * networks_alone / faces,
                    "all ms": 1e3 * seconds / faces,
                }
            )
            print({key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
    figures: dict[str, Any] = {"face frames": faces, "rounds": args.rounds, "workers": args.workers}
    figures |= {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    for name, over in (("whole", "alone"), ("steady", "alone"), ("steady", "bound")):
        ratios = [row[f"{name}_faces_per_s"] / row[f"{over}_faces_per_s"] for row in rows]
        figures[f"{name} / {over}"] = round(statistics.median(ratios), 3)
        figures[f"{name} / {over} (all rounds)"] = [round(ratio, 3) for ratio in ratios]
    publish("preprocess-rate", "python -m benchmarks.preprocess.rate --hair PATH", figures, args.output)


if __name__ == "__main__":
    main()
