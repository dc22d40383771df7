"""Lip synchronisation: generators with the face encoders of the paper's table 5, measured on held-out faces.

Expert and judge are trained first, from different seeds, unless files of them are given. What is finished is kept
until the result is published, and so is the progress of what is not, for a job that goes on after a kill.
"""

import hashlib
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as parse_tensors

from eval.lipsync.faces import FaceReader, TalkingFaces, talking_faces
from eval.lipsync.generator import Form, Generator, form_frames
from eval.lipsync.generator_learning import learn_generator
from eval.lipsync.lessons import Lesson
from eval.lipsync.measure import Ask, measure
from eval.lipsync.pictures import Frechet
from eval.lipsync.progress import Place
from eval.lipsync.sync_learning import learn_sync
from eval.lipsync.syncnet import SIDE, SyncNet
from eval.lipsync.weights import generator_bytes, load_sync, read_generator, sync_bytes, sync_of_tensors
from eval.tasks.context import Measured, TaskContext
from pipeline.config.evaluation import EvalConfig, LipEncoder
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.storage import AlreadyExists, NotFound, Store, open_store
from train.export import model_of
from train.init import start_from
from train.model import MaskedAutoencoder

Network = TypeVar("Network")

_EXPERT, _JUDGE = "expert", "judge"
_JUDGE_SEED = 1 << 20  # apart from the seeds of repeats


def store(cfg: Config) -> Store:
    """The dataset of talking faces: that of `eval.datasets.lipsync`, or the run's."""
    return open_store(cfg.eval.datasets.lipsync) if cfg.eval.datasets.lipsync else dataset_store(cfg)


def settings(cfg: EvalConfig) -> dict[str, Any]:
    """The part of the configuration that the result depends on."""
    plain = cfg.model_dump(mode="json", include={"seed": True, "bootstrap": True, "lipsync": True})
    plain["lipsync"].pop("threads")
    return plain


def check(cfg: Config, dataset: Dataset) -> None:
    """Whether the dataset can serve this task, the encoders can be made, and given files hold what they should.

    Raises:
        MarlinError: it has no sound, no held-out faces or another frame rate, or a setting or file does not fit.
    """
    _faces(cfg, dataset)
    asked = cfg.eval.lipsync
    if asked.sync_weight + asked.gan_weight >= 1:
        raise UsageError(
            "eval.lipsync.sync_weight and gan_weight leave nothing for the pictures: give less than 1 together"
        )
    if "videomae" in asked.encoders and not asked.videomae:
        raise UsageError("eval.lipsync.encoders has videomae: say where its weights are with eval.lipsync.videomae")
    for encoder in asked.encoders:
        _form(cfg, dataset, encoder)
    for name, url in ((_EXPERT, asked.sync.expert), (_JUDGE, asked.sync.judge)):
        if url:
            load_sync(url, f"eval.lipsync.sync.{name}")
    if "videomae" in asked.encoders:
        start_from(asked.videomae, model_of(cfg), "eval.lipsync.videomae")
    if asked.inception:
        Frechet(asked.inception)


def run(context: TaskContext) -> Measured:
    """Train what is missing, and measure each generator.

    Raises:
        MarlinError: the data can't serve the task, a file is no network, or learning fails.
    """
    return _Task(context).run()


class _Task:
    def __init__(self, context: TaskContext) -> None:
        self._context, self._asked = context, context.cfg.eval.lipsync
        self._faces = _faces(context.cfg, context.dataset)

    def run(self) -> Measured:
        expert = self._sync(_EXPERT, self._asked.sync.expert, self._context.cfg.eval.seed)
        judge = self._sync(_JUDGE, self._asked.sync.judge, self._context.cfg.eval.seed + _JUDGE_SEED)
        found: list[dict[str, Any]] = []
        weights = {_EXPERT: sync_bytes(expert), _JUDGE: sync_bytes(judge)}
        for encoder in dict.fromkeys(self._asked.encoders):
            generator = self._generator(encoder, expert)
            found.append({"encoder": encoder, **measure(generator, self._ask(generator, judge))})
            weights[encoder] = generator_bytes(generator)
        digests = {name: hashlib.sha256(weights[name]).hexdigest() for name in (_EXPERT, _JUDGE)}
        given = {_EXPERT: self._asked.sync.expert, _JUDGE: self._asked.sync.judge}
        result = {
            "metrics": found[0]["metrics"],
            "encoders": found,
            "networks": {name: {"from": given[name] or "trained here", "sha256": digests[name]} for name in given},
            "scored": self._faces.split,
            "shared_people": self._faces.shared_people,
            "left_out": {"no-sound": self._faces.silent, "short": self._faces.short},
            "not_measured": {}
            if self._asked.inception
            else {"fid": "needs inception-2015-12-05.pt: eval.lipsync.inception"},
        }
        return Measured(result, weights=weights)

    def _sync(self, name: str, url: str, seed: int) -> SyncNet:
        if url:
            return load_sync(url, f"eval.lipsync.sync.{name}")
        lesson = self._lesson(name, SIDE, seed)
        data = self._kept(name, lambda: sync_bytes(learn_sync(lesson, self._asked)))
        return sync_of_tensors(parse_tensors(data))

    def _generator(self, encoder: LipEncoder, expert: SyncNet) -> Generator:
        def learn() -> bytes:
            form = _form(self._context.cfg, self._context.dataset, encoder)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._context.cfg.eval.seed)
                generator = Generator(form, self._encoder(encoder))
            lesson = self._lesson(f"generator-{encoder}", form.size, self._context.cfg.eval.seed)
            return generator_bytes(learn_generator(lesson, self._asked, generator, expert))

        data = self._kept(f"generator-{encoder}", learn)
        with tempfile.TemporaryDirectory(prefix="marlin-lipsync-") as folder:
            path = Path(folder) / "generator.safetensors"
            path.write_bytes(data)
            return read_generator(path)

    def _encoder(self, encoder: LipEncoder) -> MaskedAutoencoder | None:
        if encoder == "wav2lip":
            return None
        if encoder == "marlin":
            return deepcopy(self._context.model).train()
        model = model_of(self._context.cfg)
        if encoder == "videomae":
            start_from(self._asked.videomae, model, "eval.lipsync.videomae")
        return model

    def _lesson(self, name: str, size: int, seed: int) -> Lesson:
        reader = FaceReader(self._context.store, size)
        place = Place(self._context.unfinished, f"{name}.progress")
        return Lesson(name, reader, self._faces.train, self._faces.held_out, seed, place, self._context.progress)

    def _ask(self, generator: Generator, judge: SyncNet) -> Ask:
        cfg = self._context.cfg.eval
        info = self._context.dataset.info
        return Ask(
            FaceReader(self._context.store, generator.form.size),
            self._faces.scored,
            judge,
            int(info["size"]) // int(info["patch"]),
            self._asked.inception,
            cfg.bootstrap,
            cfg.seed,
            self._context.progress,
        )

    def _kept(self, name: str, learn: Callable[[], bytes]) -> bytes:
        """A finished network of an earlier job that was ended, or a new one."""
        unfinished, key = self._context.unfinished, f"{name}.safetensors"
        try:
            return unfinished.read(key)
        except NotFound:
            data = learn()
        try:
            unfinished.create(key, data)
        except AlreadyExists:  # of a job beside this one: both go on with the same
            return unfinished.read(key)
        return data


def _faces(cfg: Config, dataset: Dataset) -> TalkingFaces:
    """The faces that all encoders can learn from and be measured on."""
    clip = max(form_frames(encoder, cfg.data.frames) for encoder in cfg.eval.lipsync.encoders)
    return talking_faces(dataset, cfg.eval.max_unlabelled, clip)


def _form(cfg: Config, dataset: Dataset, encoder: LipEncoder) -> Form:
    margin = float(dataset.info["config"].get("margin", 0.0))
    channels, frames = cfg.eval.lipsync.channels, form_frames(encoder, cfg.data.frames)
    if encoder == "wav2lip":
        return Form(encoder, cfg.eval.lipsync.size, frames, channels, margin)
    model = cfg.model
    try:
        return Form(encoder, cfg.preprocess.size, frames, channels, margin, model.size, model.patch, cfg.data.normalize)
    except UsageError as error:
        raise MarlinError(f"eval.lipsync.encoders={encoder}: {error}") from None
