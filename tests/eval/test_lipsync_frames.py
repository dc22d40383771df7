"""Which frame meets which sound, by networks that show it: a face says its number, and so does what is heard of it."""

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor, nn

from eval.lipsync.drawing import embed_lips, embed_sound, redraw
from eval.lipsync.draws import Clip, Moment
from eval.lipsync.faces import Box, FaceReader, Image, TalkingFace
from eval.lipsync.generator import Form, Generator
from eval.lipsync.measure import Ask, measure
from eval.lipsync.mel import FRAMES, MELS, Mel
from eval.lipsync.sync_scores import sync_of
from eval.lipsync.syncnet import SyncNet
from eval.sequences import FrameSequence
from pipeline.dataset import Sample
from pipeline.storage import open_store

LENGTH, SIDE = 100, 32
# Columns of five frames' window that are in the middle of each of them, wherever between two columns it begins.
PLACES = [1, 5, 8, 11, 14]
AROUND = 8  # the column of a frame itself in the window around it


def shown(values: NDArray[np.int64]) -> Image:
    """Frames of one colour each."""
    return np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (len(values), SIDE, SIDE, 3)).copy()


def heard(values: NDArray[np.int64]) -> Mel:
    """A spectrogram that has the value of a frame for as long as it is shown."""
    columns = np.arange(len(values) * 16 // 5) * 5 // 16  # 16 columns are five frames
    return np.broadcast_to(values[columns].astype(np.float32), (MELS, len(columns))).copy()


class Echo(Generator):
    """Draws what it hears in the middle of each frame."""

    def __init__(self) -> None:
        super().__init__(Form("wav2lip", SIDE, FRAMES, 1, 0.0))

    def forward(self, target_BT3SS: Tensor, reference_BT3SS: Tensor, mel_BTMC: Tensor) -> Tensor:
        said = mel_BTMC[:, :, 0, AROUND].clamp(min=0) / 255
        return said[..., None, None, None].expand_as(target_BT3SS)


class Reads(SyncNet):
    """Embeds what five frames show, and what is heard in the middle of each of them."""

    def __init__(self) -> None:
        super().__init__(1)

    def embed_faces(self, faces_BT3SS: Tensor) -> Tensor:
        return self._vector(faces_BT3SS.mean((2, 3, 4)) * 255)

    def embed_sound(self, mel_BMS: Tensor) -> Tensor:
        return self._vector(mel_BMS[:, 0, PLACES])

    def _vector(self, values_BF: Tensor) -> Tensor:
        return nn.functional.normalize(values_BF - 128, dim=1)


class Numbers(Reads):
    """The same without a norm."""

    def _vector(self, values_BF: Tensor) -> Tensor:
        return values_BF


class Drawn(FaceReader):
    """Faces that say numbers, the same in picture and sound."""

    def __init__(self, values: dict[str, NDArray[np.int64]]) -> None:
        super().__init__(open_store("/nowhere"), SIDE)
        self.values = values

    def frames(self, face: TalkingFace, index_F: NDArray[np.int64]) -> Image:
        return shown(self.values[face.identity][index_F])

    def mel(self, face: TalkingFace) -> Mel:
        return heard(self.values[face.identity])

    def mouths(self, face: TalkingFace, grid: int) -> list[Box | None]:
        return [(8, 16, 24, 32)] * face.frames


def face(person: str) -> TalkingFace:
    sample = Sample(person, "000000", "shard.tar", LENGTH, person, person, 0, 0, "test", {})
    return TalkingFace(FrameSequence(person, 0, "test", (sample,)), person)


def said_by(*people: str) -> Drawn:
    dice = np.random.default_rng(0)
    return Drawn({person: dice.integers(1, 255, LENGTH) for person in people})


NUMBERED = Drawn({"a": np.arange(LENGTH)})


@pytest.mark.parametrize("begin", [0, 7, 40])
def test_every_frame_is_drawn_with_the_sound_of_it(begin: int) -> None:
    drawn = redraw(Echo(), shown(np.zeros(50, np.int64)), heard(np.arange(LENGTH)), begin)
    assert drawn[:, 0, 0, 0].tolist() == list(range(begin, begin + 50))


def test_every_five_frames_are_embedded_in_order() -> None:
    fives = np.arange(LENGTH - FRAMES + 1)[:, None] + np.arange(FRAMES)
    np.testing.assert_allclose(embed_lips(Numbers(), shown(np.arange(LENGTH))), fives, atol=1e-3)
    np.testing.assert_array_equal(embed_sound(Numbers(), heard(np.arange(LENGTH)), LENGTH), fives)


def test_moments_and_clips_are_read_with_their_sound() -> None:
    for first in (0, 7, LENGTH - FRAMES):
        frames, window_MC = Moment(face("a"), first).read(NUMBERED)
        expected = list(range(first, first + FRAMES))
        assert frames[:, 0, 0, 0].tolist() == window_MC[0, PLACES].tolist() == expected
    target, reference, around_TMC, fives_NMC = Clip(face("a"), 10, 95, 12).read(NUMBERED)
    assert target[:, 0, 0, 0].tolist() == around_TMC[:, 0, AROUND].tolist() == list(range(10, 22))
    assert reference[:, 0, 0, 0].tolist() == [*range(95, 100), *range(7)]
    assert fives_NMC[:, 0, PLACES].tolist() == [list(range(10, 15)), list(range(15, 20))]


@pytest.mark.parametrize("late", [-15, -4, 0, 3, 15])
def test_sound_that_is_late_by_some_frames_is_found_there(late: int) -> None:
    values = said_by("a").values["a"]
    sound = embed_sound(Reads(), heard(np.roll(values, late)), LENGTH)
    assert sync_of(embed_lips(Reads(), shown(values)), sound).offset == late


def test_dubbed_videos_are_measured_with_the_sounds_they_should_be() -> None:
    people = ("anna", "berta", "cecil")
    ask = Ask(said_by(*people), [face(person) for person in people], Reads(), 4, "", 50, 0)
    found = measure(Echo().eval(), ask)
    metrics, margins = found["metrics"], found["margins"]
    for name in ("lse_d", "own_lse_d", "real_lse_d"):
        assert metrics[name] == pytest.approx(0, abs=1e-3)
    assert min(metrics["untouched_lse_d"], metrics["contrast_lse_d"]) > 0.5
    assert (metrics["in_step"], metrics["real_in_step"]) == (1, 1)
    assert margins["lse_d_than_other_sound"]["mean"] == pytest.approx(metrics["contrast_lse_d"], abs=1e-3)
    assert margins["lse_d_than_untouched"]["mean"] == pytest.approx(metrics["untouched_lse_d"], abs=1e-3)
    assert (metrics["psnr"], metrics["ssim"]) == (100, pytest.approx(1))
    assert margins["psnr_than_copied"]["mean"] == pytest.approx(100 - metrics["copied_psnr"])
    assert metrics["copied_psnr"] < 30
