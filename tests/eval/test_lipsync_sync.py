"""Sync scores where the answer is known, and sync networks as files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from eval.lipsync.sync_scores import REACH, offset_distances, sync_of
from eval.lipsync.syncnet import SIDE, SyncNet, expert_loss, sync_loss
from eval.lipsync.weights import load_sync, sync_bytes
from pipeline.errors import MarlinError, UsageError

# Shapes of layers of the published lipsync_expert.pth (216 tensors and BatchNorm counters of 31 layers).
PUBLISHED = {
    "face_encoder.0.conv_block.0.weight": (32, 15, 7, 7),
    "face_encoder.1.conv_block.0.weight": (64, 32, 5, 5),
    "face_encoder.4.conv_block.0.weight": (128, 64, 3, 3),
    "face_encoder.16.conv_block.0.weight": (512, 512, 1, 1),
    "face_encoder.16.conv_block.1.running_var": (512,),
    "audio_encoder.0.conv_block.0.weight": (32, 1, 3, 3),
    "audio_encoder.3.conv_block.0.weight": (64, 32, 3, 3),
    "audio_encoder.13.conv_block.0.weight": (512, 512, 1, 1),
    "audio_encoder.13.conv_block.1.num_batches_tracked": (),
}


def unit(seed: int, frames: int, width: int = 16) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((frames, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@given(late=st.integers(-REACH, REACH), frames=st.integers(2 * REACH + 2, 80), seed=st.integers(0, 99))
def test_sound_that_is_late_by_some_frames_is_found_there(late: int, frames: int, seed: int) -> None:
    spoken = unit(seed, frames + 2 * REACH)
    lips, sound = spoken[REACH : REACH + frames], spoken[REACH - late : REACH - late + frames]
    found = sync_of(lips, sound)
    assert found.offset == late
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert found.confidence > 0.5


def test_distance_and_confidence_are_those_of_syncnet() -> None:
    lips, sound = unit(1, 40), unit(2, 40)
    by_hand = []
    for k in range(-REACH, REACH + 1):
        pairs = [np.linalg.norm(lips[i] - sound[i + k]) for i in range(40) if 0 <= i + k < 40]
        by_hand.append(np.mean(pairs))
    np.testing.assert_allclose(offset_distances(lips, sound), by_hand, rtol=1e-6)
    found = sync_of(lips, sound)
    assert found.distance == pytest.approx(min(by_hand))
    assert found.confidence == pytest.approx(np.median(by_hand) - min(by_hand))


def test_too_short_a_video_is_refused() -> None:
    with pytest.raises(MarlinError, match="needs 20 frames or more, and there are 19"):
        sync_of(unit(0, REACH), unit(0, REACH))


def test_network_has_the_published_layout() -> None:
    shapes = {name: tuple(value.shape) for name, value in SyncNet().state_dict().items()}
    assert len(shapes) == 31 * 7
    assert PUBLISHED.items() <= shapes.items()


def test_published_file_is_loaded_whatever_wraps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SyncNet(2).eval()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    path = tmp_path / "lipsync_expert.pth"
    torch.save({"state_dict": state, "optimizer": {"param_groups": [{"lr": 1e-4}]}, "global_step": 7}, path)
    (tmp_path / "own.safetensors").write_bytes(sync_bytes(network))
    faces, mel = torch.rand(2, 5, 3, SIDE, SIDE), torch.rand(2, 80, 16)
    for file in (path, tmp_path / "own.safetensors"):
        loaded = load_sync(str(file), "eval.lipsync.sync.expert")
        torch.testing.assert_close(loaded.embed_faces(faces), network.embed_faces(faces))
        torch.testing.assert_close(loaded.embed_sound(mel), network.embed_sound(mel))


def test_other_files_are_refused_by_the_key_that_names_them(tmp_path: Path) -> None:
    key = "eval.lipsync.sync.judge"
    with pytest.raises(UsageError, match=rf"{key}=.*missing\.pth: no such file"):
        load_sync(str(tmp_path / "missing.pth"), key)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=rf"{key}=.*it is no sync network in the layout of Wav2Lip"):
        load_sync(str(tmp_path / "other.pth"), key)
    wrong = SyncNet(2).state_dict() | {"face_encoder.3.conv_block.0.weight": torch.zeros(1)}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(UsageError, match="size mismatch"):
        load_sync(str(tmp_path / "wrong.pth"), key)
    broken = SyncNet(2).state_dict()
    broken["face_encoder.3.conv_block.0.weight"][0] = float("nan")
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(UsageError, match=r"1 of its tensors hold no finite numbers \(face_encoder\.3"):
        load_sync(str(tmp_path / "broken.pth"), key)


def test_only_the_lower_half_of_faces_counts_and_colours_come_as_published() -> None:
    torch.manual_seed(0)
    network = SyncNet(2).eval()
    faces = torch.rand(1, 5, 3, SIDE, SIDE)
    other = faces.clone()
    other[..., : SIDE // 2, :] = 0
    torch.testing.assert_close(network.embed_faces(faces), network.embed_faces(other))
    # By hand: frames after each other, blue first.
    channels = torch.cat([faces[0, frame, [2, 1, 0], SIDE // 2 :] for frame in range(5)])[None]
    expected = F.normalize(network.face_encoder(channels).flatten(1), dim=1)
    torch.testing.assert_close(network.embed_faces(faces), expected)


def test_loss_is_the_cross_entropy_of_the_cosine_of_true_and_false_pairs_of_a_face() -> None:
    dice = torch.Generator().manual_seed(2)
    lips, sound = (F.normalize(torch.rand(2, 3, 4, generator=dice), dim=-1) for _ in range(2))
    cosine = [[[float(lips[f, i] @ sound[f, j]) for j in range(3)] for i in range(3)] for f in range(2)]
    true = [-np.log(cosine[f][i][i]) for f in range(2) for i in range(3)]
    false = [-np.log(1 - cosine[f][i][j]) for f in range(2) for i in range(3) for j in range(3) if i != j]
    assert float(sync_loss(lips, sound)) == pytest.approx((np.mean(true) + np.mean(false)) / 2, rel=1e-5)
    assert float(sync_loss(lips[:1], lips[:1].clone())) > 0
    lips[0, 0] = float("nan")
    assert sync_loss(lips, sound).isnan()


def test_expert_sees_every_whole_five_frames_with_their_sound() -> None:
    torch.manual_seed(0)
    network = SyncNet(2).eval()
    faces, mel = torch.rand(2, 12, 3, 64, 64), torch.rand(2, 2, 80, 16)
    losses = [
        expert_loss(network, faces[b : b + 1, 5 * n : 5 * n + 5], mel[b : b + 1, n : n + 1])
        for b in range(2)
        for n in range(2)
    ]
    torch.testing.assert_close(expert_loss(network, faces, mel), torch.stack(losses).mean())
