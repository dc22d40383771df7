"""Whether lip synchronisation works, on drawn talking faces, with what two cores can learn in half an hour.

    python -m benchmarks.eval.lipsync LIPS -o benchmarks/eval/results
    python -m benchmarks.eval.lipsync LIPS --only judge    # parts can run beside each other, or go on later

Two corpora of other people are drawn. Expert and generator learn from the training people of the first; the judge
learns from those of the second, from another seed and with other widths: it shares nothing with the expert but its
form. Everything is measured on test people of the first corpus, whom no network has seen. What is finished stays in the
folder, with the minutes that it took: of the clock, and of the processor (one thread computes), which other work on the
machine changes less.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import publish
from eval.lipsync.faces import FaceReader, TalkingFaces, talking_faces
from eval.lipsync.generator import Form, Generator
from eval.lipsync.generator_learning import learn_generator
from eval.lipsync.lessons import Lesson
from eval.lipsync.measure import Ask, measure
from eval.lipsync.mel import FRAMES
from eval.lipsync.progress import Place
from eval.lipsync.sync_learning import learn_sync
from eval.lipsync.syncnet import SIDE, SyncNet
from eval.lipsync.weights import generator_bytes, load_sync, read_generator, sync_bytes
from pipeline.config.evaluation import LipSyncConfig
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import UsageError
from pipeline.log import setup_logging
from pipeline.storage import Store, open_store
from tests.drawn_runs import small_config
from tests.talking import talks, write_talks

EXPERT, GENERATOR, JUDGE = "expert", "generator", "judge"
SEEDS = {EXPERT: 5, GENERATOR: 5, JUDGE: 6}
"""Of the corpus that each learns from. Rates, sizes and weights were chosen on corpora 1 to 4, and nothing on these."""

SIZE, VIDEOS, LENGTH, PATCH = 64, 120, 96, 8


class Work:
    """The folder of a run: corpora and networks that are finished."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        options, bound = folder / "options.json", {**settings(asked), "corpora": SEEDS}
        if not options.exists() and not any(folder.glob("*.safetensors")):
            options.write_text(json.dumps(bound))
        elif not options.exists() or json.loads(options.read_text()) != bound:
            raise UsageError(f"{folder} has networks of other options ({options.name}): give those, or an empty folder")

    def corpus(self, seed: int) -> tuple[Store, Dataset]:
        """A drawn corpus."""
        store = open_store(str(self.folder / f"corpus-{seed}"))
        if not store.exists("dataset.json"):
            cfg = small_config(self.folder, f"preprocess.size={SIZE}", f"preprocess.patch={PATCH}")
            write_talks(store, cfg, talks(VIDEOS, LENGTH, seed), LENGTH)
        return store, load_dataset(store)

    def faces(self, name: str) -> tuple[Store, TalkingFaces]:
        """What a network learns from."""
        store, dataset = self.corpus(SEEDS[name])
        return store, talking_faces(dataset, 0.0)

    def finished(self, name: str) -> Path:
        """The file of a network; it is learned where it is not there."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            learn: Callable[[], bytes] = partial(self._sync, name)
            if name not in (EXPERT, JUDGE):
                number = int(name.removeprefix(GENERATOR))
                learn = partial(self._round, number)
                # First, so that its minutes are not counted twice.
                self.finished(f"{GENERATOR}{number - 1}" if number else EXPERT)
            with self._counted(name):
                data = learn()
            unfinished = path.with_suffix(".part")
            unfinished.write_bytes(data)
            unfinished.replace(path)
        return path

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Add the minutes of the block to those before an error or Ctrl-C; what was killed told none."""
        wall, processor = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            spent = self.spent([name])
            spent["minutes"] += (time.monotonic() - wall) / 60
            spent["processor minutes"] += (time.process_time() - processor) / 60
            (self.folder / f"{name}.json").write_text(json.dumps(spent))

    def spent(self, names: Sequence[str]) -> dict[str, float]:
        """Minutes that some networks took together."""
        files = [self.folder / f"{name}.json" for name in names]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        return {what: sum(each[what] for each in found) for what in ("minutes", "processor minutes")}

    def _sync(self, name: str) -> bytes:
        asked = self.asked
        channels = asked.expert_channels if name == EXPERT else asked.judge_channels
        sync = {"channels": channels, "steps": asked.sync_steps}
        cfg = LipSyncConfig.model_validate({"judge_every": 50, "sync": sync})
        return sync_bytes(learn_sync(self._lesson(name, SIDE, 1 << 20 if name == JUDGE else 0), cfg))

    def _round(self, number: int) -> bytes:
        """A round of the generator's learning, from where the last one ended; the first ones are without the expert."""
        asked = self.asked
        weight = asked.sync_weights[number]
        cfg = LipSyncConfig(
            steps=asked.steps,
            batch=asked.batch,
            lr=asked.lr,
            judge_every=50,
            sync_weight=weight,
            sync_from=100,  # the rounds without it are the wait for it
        )
        expert = load_sync(str(self.finished(EXPERT)), EXPERT) if weight else SyncNet(1)
        if number:
            generator = read_generator(self.finished(f"{GENERATOR}{number - 1}"))
        else:
            torch.manual_seed(0)
            generator = Generator(Form("wav2lip", SIZE, FRAMES, asked.channels, 0.0))
        return generator_bytes(learn_generator(self._lesson(GENERATOR, SIZE, number), cfg, generator, expert))

    def _lesson(self, name: str, size: int, seed: int) -> Lesson:
        store, faces = self.faces(name)
        place = Place(open_store(str(self.folder)), f"{name}-{seed}.progress")
        return Lesson(name, FaceReader(store, size), faces.train, faces.held_out, seed, place)


def settings(asked: argparse.Namespace) -> dict[str, Any]:
    """Options that decide what is learned."""
    return {key: value for key, value in vars(asked).items() if key not in ("folder", "out", "only")}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def run(work: Work) -> dict[str, Any]:
    """Learn what is missing, and measure."""
    judge = load_sync(str(work.finished(JUDGE)), "judge")
    rounds = [f"{GENERATOR}{number}" for number in range(len(work.asked.sync_weights))]
    generator = read_generator(work.finished(rounds[-1]))
    store, faces = work.faces(GENERATOR)
    ask = Ask(FaceReader(store, SIZE), faces.scored, judge, SIZE // PATCH, "", 10_000, 0)
    found = measure(generator, ask)
    parts = {EXPERT: [EXPERT], GENERATOR: rounds, JUDGE: [JUDGE]}
    spent = {f"{name}: {what}": round(n, 1) for name, files in parts.items() for what, n in work.spent(files).items()}
    return {
        **{name: round(value, 4) for name, value in found["metrics"].items()},
        **{f"margin: {name}": one for name, one in found["margins"].items()},
        "scored": f"{found['videos']} videos of {found['people']} people",
        "learned from": f"{len(faces.train)} videos of {LENGTH} frames, {SIZE}×{SIZE}",
        **spent,
    }


def main() -> None:
    """Prints the figures; writes them where -o says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--only", choices=[EXPERT, GENERATOR, JUDGE], help="learn this and stop")
    parser.add_argument("--expert-channels", type=int, default=8)
    parser.add_argument("--judge-channels", type=int, default=6)
    parser.add_argument("--sync-steps", type=int, default=600)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400, help="of each round of the generator")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--sync-weights",
        type=float,
        nargs="+",
        default=[0, 0, 0.1, 0.03, 0.03, 0.03],
        help="of the expert's loss in each round of the generator: none, much until lips move, then the paper's",
    )
    asked = parser.parse_args()
    setup_logging()
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    try:
        work = Work(asked.folder, asked)
    except UsageError as error:
        parser.error(str(error))
    if asked.only:
        work.finished(f"{GENERATOR}{len(asked.sync_weights) - 1}" if asked.only == GENERATOR else asked.only)
        return
    options = " ".join(f"--{key.replace('_', '-')} {_words(value)}" for key, value in settings(asked).items())
    publish("lipsync", f"python -m benchmarks.eval.lipsync FOLDER {options}", run(work), asked.out)


if __name__ == "__main__":
    main()
