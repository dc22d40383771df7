"""Ray Data beside plain actors, for the same units on the same workers.

    python -m benchmarks.preprocess.engines

Both hold the same networks in two actors and hand them one unit at a time. Ray Data gets a cluster of three CPUs: with
two, an actor pool that takes both leaves none for its read task, and it never starts.
"""

import argparse
import statistics
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.preprocess.memory import PeakMemory
from benchmarks.results import publish
from pipeline.config.schema import Config
from pipeline.layout import dataset_store
from preprocess.cluster.worker import cluster, process_units
from preprocess.corpora import list_corpus, open_places
from preprocess.dataset.plan import Unit
from preprocess.dataset.planning import extend_plan
from preprocess.dataset.settings import content_settings
from preprocess.models import load_networks, model_files
from preprocess.unit import UnitProcessor

WORKERS = 2


class Processor:
    """A stateful map of Ray Data: a unit in, its number of face frames out."""

    def __init__(self, cfg: Config) -> None:
        networks = load_networks(cfg.preprocess, model_files(cfg.preprocess))
        self._processor = UnitProcessor(cfg.preprocess, dataset_store(cfg), networks, lru_cache(open_places))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        manifest = self._processor.process(row["unit"])
        return {"faces": sum(sample["frames"] for sample in manifest["samples"])}


def _units(cfg: Config) -> list[Unit]:
    listing, settings = list_corpus(cfg.corpus), content_settings(cfg.preprocess)
    plan, _ = extend_plan(dataset_store(cfg), cfg, listing, settings, progress=False)
    return list(plan.units)


def with_actors(cfg: Config) -> int:
    """Face frames that our own scheduling of actors makes."""
    units = _units(cfg)
    with cluster(cfg.preprocess):
        manifests = list(process_units(cfg, dataset_store(cfg), units, WORKERS))
    return sum(sample["frames"] for manifest in manifests for sample in manifest["samples"])


def with_ray_data(cfg: Config) -> int:
    """Face frames that Ray Data makes."""
    import ray

    units = _units(cfg)
    with cluster(cfg.preprocess.model_copy(update={"workers": WORKERS + 1})):
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        done = rows.map(
            Processor, fn_constructor_args=[cfg], compute=ray.data.ActorPoolStrategy(size=WORKERS), num_cpus=1
        )
        return sum(row["faces"] for row in done.iter_rows())


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=2, help="copies of each sample video (default: 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    engines = {"actors": with_actors, "ray data": with_ray_data}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    memory: dict[str, list[int]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as folder:
        corpus = make_corpus(Path(folder, "in"), args.copies)
        for number in range(args.rounds):
            for name, run in engines.items():
                cfg = make_config(corpus, Path(folder, f"{name}{number}"), workers=WORKERS)
                start = time.perf_counter()
                with PeakMemory() as peak:
                    faces = run(cfg)
                seconds[name].append(time.perf_counter() - start)
                memory[name].append(peak.whole >> 20)
                print(f"{name}: {faces} face frames, {seconds[name][-1]:.1f} s, {memory[name][-1]} MiB", flush=True)
    figures: dict[str, Any] = {"face frames": faces, "rounds": args.rounds}
    for name in engines:
        figures[f"{name}: seconds, start included"] = round(statistics.median(seconds[name]), 1)
        figures[f"{name}: peak memory, MiB"] = round(statistics.median(memory[name]))
    ratios = [slow / fast for slow, fast in zip(seconds["ray data"], seconds["actors"], strict=True)]
    figures["ray data / actors, seconds"] = round(statistics.median(ratios), 3)
    publish("preprocess-engines", "python -m benchmarks.preprocess.engines", figures, args.output)


if __name__ == "__main__":
    main()
