"""Learning of sync networks and generators: killed and gone on, it gives the same; and it learns what can be seen."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_runs import small_config
from talking import talks, write_talks
from torch import Tensor, nn
from torch.optim import Optimizer

from eval.lipsync import generator_learning
from eval.lipsync.drawing import redraw
from eval.lipsync.faces import FaceReader, TalkingFaces, talking_faces
from eval.lipsync.generator import Form, Generator
from eval.lipsync.generator_learning import learn_generator
from eval.lipsync.lessons import Lesson
from eval.lipsync.progress import Place
from eval.lipsync.sync_learning import learn_sync
from eval.lipsync.syncnet import SyncNet
from pipeline.config.evaluation import LipSyncConfig
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store, open_store

CFG = LipSyncConfig.model_validate(
    {
        "channels": 1,
        "steps": 5,
        "batch": 10,
        "lr": 1e-3,
        "judge_every": 2,
        "sync_from": 9,
        "gan_weight": 0.07,
        "sync": {"channels": 1, "steps": 5, "batch": 8},
    }
)


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("talking")
    store = open_store(str(folder / "dataset"))
    write_talks(store, small_config(folder), talks(12, 32), 32)
    return store


class StoppedLesson(Lesson):
    """A lesson whose job is killed in the fourth step."""

    def update(self, optimizer: Optimizer, loss: Tensor) -> None:
        if optimizer.state and next(iter(optimizer.state.values()))["step"] == 3:
            raise KeyboardInterrupt
        super().update(optimizer, loss)


def lesson(
    talking: Store,
    folder: Path,
    size: int,
    *,
    stopped: bool = False,
    held_out: bool = True,
    kind: type[Lesson] = Lesson,
) -> Lesson:
    found: TalkingFaces = talking_faces(load_dataset(talking), 0.0)
    kind = StoppedLesson if stopped else kind
    place = Place(open_store(str(folder)), "network.progress")
    return kind("network", FaceReader(talking, size), found.train, found.held_out if held_out else (), 3, place)


def generator(talking: Store, folder: Path, *, stopped: bool = False) -> Generator:
    torch.manual_seed(0)
    fresh = Generator(Form("wav2lip", 32, 5, 1, 0.0))
    expert = SyncNet(1)
    return learn_generator(lesson(talking, folder, 32, stopped=stopped), CFG, fresh, expert)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_killed_sync_network_learns_the_same(talking: Store, tmp_path: Path, held_out: bool) -> None:
    whole = learn_sync(lesson(talking, tmp_path / "whole", 96, held_out=held_out), CFG)
    with pytest.raises(KeyboardInterrupt):
        learn_sync(lesson(talking, tmp_path / "killed", 96, stopped=True, held_out=held_out), CFG)
    assert int(lesson(talking, tmp_path / "killed", 96).place.read()["step"]) == 2  # type: ignore[index]
    again = learn_sync(lesson(talking, tmp_path / "killed", 96, held_out=held_out), CFG)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_a_killed_generator_learns_the_same(talking: Store, tmp_path: Path) -> None:
    whole = generator(talking, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        generator(talking, tmp_path / "killed", stopped=True)
    kept = Place(open_store(str(tmp_path / "killed")), "network.progress").read()
    assert kept is not None
    assert int(kept["step"]) == 2
    assert bool(kept["sync_counts"])
    again = generator(talking, tmp_path / "killed")
    for name, value in whole.weights().items():
        torch.testing.assert_close(again.weights()[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_a_generator_learns_to_draw_what_is_hidden(talking: Store, tmp_path: Path) -> None:
    """A few steps of the pictures' loss bring its error below that of a fresh one."""
    cfg = CFG.model_copy(update={"steps": 40, "channels": 2, "sync_weight": 0.0, "gan_weight": 0.0, "lr": 3e-3})
    reader = FaceReader(talking, 32)
    found = talking_faces(load_dataset(talking), 0.0)

    def error(network: Generator) -> float:
        face = found.train[0]
        frames = reader.frames(face, torch.arange(32).numpy())
        drawn = redraw(network, frames, reader.mel(face))
        return float(abs(drawn.astype(int) - frames)[:, 16:].mean())

    torch.manual_seed(0)
    network = Generator(Form("wav2lip", 32, 5, 2, 0.0)).eval()
    before = error(network)
    after = error(learn_generator(lesson(talking, tmp_path, 32), cfg, network, SyncNet(1)))
    assert after < 0.75 * before


class WeighedLesson(Lesson):
    """Nothing is learned: remembers the losses."""

    def update(self, optimizer: Optimizer, loss: Tensor) -> None:
        LOSSES.append(float(loss.detach()))


LOSSES: list[float] = []


@pytest.mark.parametrize(("sync", "fooling"), [(0.25, 0.0), (0.0, 0.125), (0.25, 0.125)])
def test_the_loss_is_the_weighted_sum_of_its_parts(
    talking: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: float, fooling: float
) -> None:
    monkeypatch.setattr(generator_learning, "expert_loss", lambda *_: torch.tensor(2.0))
    monkeypatch.setattr(generator_learning, "fooling_loss", lambda *_: torch.tensor(3.0))
    found = []
    for name, weights in (("pictures", (0.0, 0.0)), ("all", (sync, fooling))):
        update = {"steps": 3, "judge_every": 1, "sync_weight": weights[0], "gan_weight": weights[1]}
        given = lesson(talking, tmp_path / name, 32, kind=WeighedLesson)
        torch.manual_seed(0)
        network = Generator(Form("wav2lip", 32, 5, 1, 0.0))
        LOSSES.clear()
        learn_generator(given, CFG.model_copy(update=update), network, SyncNet(1))
        found.append(LOSSES[:: 2 if weights[1] else 1])  # the critic's losses lie between
    pictures, whole = found
    counts = [0, sync, sync]  # of the expert, after the first look
    expected = [(1 - s - fooling) * one + 2 * s + 3 * fooling for s, one in zip(counts, pictures, strict=True)]
    assert whole == pytest.approx(expected, rel=1e-5)


class JudgedLesson(Lesson):
    """Looks find errors of .5, .1 and .3; remembers the weights that they were of."""

    def look(self, network: nn.Module, batches: Iterator[Any], loss_of: Callable[[Any], Tensor]) -> float:
        SEEN.append({name: value.clone() for name, value in network.state_dict().items()})
        return (0.5, 0.1, 0.3)[len(SEEN) - 1]


SEEN: list[dict[str, Tensor]] = []


def test_a_sync_network_is_as_it_erred_least(talking: Store, tmp_path: Path) -> None:
    SEEN.clear()
    found = learn_sync(lesson(talking, tmp_path, 96, kind=JudgedLesson), CFG).state_dict()
    same = [all(torch.equal(value, found[name]) for name, value in each.items()) for each in SEEN]
    assert same == [False, True, False]


def test_a_sync_network_goes_on_from_another(talking: Store, tmp_path: Path) -> None:
    still = CFG.model_copy(update={"sync": CFG.sync.model_copy(update={"lr": 1e-12, "steps": 1})})
    begin = SyncNet(1)
    found = learn_sync(lesson(talking, tmp_path / "on", 96, held_out=False), still, begin)
    fresh = learn_sync(lesson(talking, tmp_path / "fresh", 96, held_out=False), still)
    for name, value in begin.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), value)
    first = "face_encoder.0.conv_block.0.weight"
    assert not torch.equal(fresh.get_parameter(first), begin.get_parameter(first))


def test_a_sync_network_that_diverges_ends_it(talking: Store, tmp_path: Path) -> None:
    cfg = CFG.model_copy(update={"sync": CFG.sync.model_copy(update={"lr": 1e30})})
    for held_out in (True, False):
        with pytest.raises(MarlinError, match=r"the loss of the network is nan: lower .*eval\.lipsync\.sync\.lr"):
            learn_sync(lesson(talking, tmp_path / str(held_out), 96, held_out=held_out), cfg)


def test_damaged_progress_is_named(talking: Store, tmp_path: Path) -> None:
    given = lesson(talking, tmp_path, 96)
    given.place.write({"step": torch.tensor(2)})
    path = tmp_path / given.place.key
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(MarlinError, match=r"network\.progress is damaged .*: delete it to begin anew"):
        learn_sync(given, CFG)


def test_a_loss_that_is_no_number_ends_it(talking: Store, tmp_path: Path) -> None:
    network = Generator(Form("wav2lip", 32, 5, 1, 0.0))
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(MarlinError, match=r"the loss of the network is nan: lower eval\.lipsync\.lr"):
        learn_generator(lesson(talking, tmp_path, 32), CFG, network, SyncNet(1))
