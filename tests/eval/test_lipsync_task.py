"""The task lipsync through the evaluation job: data it takes and refuses, what it leaves, what it says."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import MakeRun, small_config
from safetensors.torch import save_file
from talking import pictures, sound, talks, write_talks

from eval.job import check_tasks, run_eval
from eval.lipsync.drawing import reference_of
from eval.lipsync.draws import MOMENTS, draw_clips, draw_moments
from eval.lipsync.dub import open_generator
from eval.lipsync.faces import FaceReader, talking_faces
from eval.lipsync.mel import mel_spectrogram
from eval.sequences import windows
from eval.tasks import lipsync
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from pipeline.storage import Store, open_store
from train.export import model_of

FRAMES = 80
QUICK = (
    "eval.bootstrap=50",
    "eval.lipsync.size=32",
    "eval.lipsync.channels=1",
    "eval.lipsync.steps=2",
    "eval.lipsync.batch=16",
    "eval.lipsync.judge_every=1",
    "eval.lipsync.sync_from=9",
    "eval.lipsync.sync.channels=1",
    "eval.lipsync.sync.steps=2",
    "eval.lipsync.sync.batch=8",
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A dataset that serves the task."""
    folder = tmp_path_factory.mktemp("talking")
    store = open_store(str(folder / "dataset"))
    write_talks(store, small_config(folder), talks(12, FRAMES), FRAMES)
    return store


def asked(make_run: MakeRun, talking: Store, *overrides: str, steps: tuple[int, ...] = (20,)) -> Config:
    """A run whose newest checkpoint is to be evaluated."""
    return make_run("eval.tasks=[lipsync]", f"eval.datasets.lipsync='{talking.url}'", *QUICK, *overrides, steps=steps)


@pytest.mark.slow
def test_every_encoder_is_trained_measured_and_kept(make_run: MakeRun, drawn: Store, tmp_path: Path) -> None:
    cfg = asked(make_run, drawn)
    save_file(model_of(cfg).state_dict(), tmp_path / "videomae.safetensors")
    encoders = (
        f"eval.lipsync.encoders=[wav2lip,vit,videomae,marlin] eval.lipsync.videomae='{tmp_path}/videomae.safetensors'"
    )
    cfg = asked(make_run, drawn, *encoders.split(), "eval.lipsync.gan_weight=0.07", steps=())
    result = run_eval(cfg, progress=False)["lipsync"]
    assert [found["encoder"] for found in result["encoders"]] == ["wav2lip", "vit", "videomae", "marlin"]
    for found in result["encoders"]:
        assert found["videos"] == 4
        assert found["people"] == 1
        assert set(found["margins"]) == {"lse_d_than_other_sound", "lse_d_than_untouched", "psnr_than_copied"}
        assert {"lse_d", "lse_c", "own_lse_d", "real_lse_d", "in_step", "psnr", "ssim", "copied_psnr"} <= set(
            found["metrics"]
        )
        assert "fid" not in found["metrics"]
    # Whatever the encoder, untouched videos are the same.
    assert len({found["metrics"]["untouched_lse_d"] for found in result["encoders"]}) == 1
    assert result["metrics"] == result["encoders"][0]["metrics"]
    assert "inception-2015-12-05.pt" in result["not_measured"]["fid"]
    assert result["scored"] == "test"
    for encoder in ("wav2lip", "vit", "videomae", "marlin"):
        generator = open_generator(run_store(cfg).url, encoder)
        assert generator.form.encoder == encoder
        assert generator.form.frames == (5 if encoder == "wav2lip" else cfg.data.frames)
    with pytest.raises(UsageError, match="has no generator 'marlim'"):
        open_generator(run_store(cfg).url, "marlim")


@pytest.mark.slow
def test_a_killed_job_goes_on_with_what_was_finished(
    make_run: MakeRun, drawn: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = asked(make_run, drawn, "eval.lipsync.encoders=[wav2lip]")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lipsync, "learn_generator", killed)
        with pytest.raises(KeyboardInterrupt):
            run_eval(cfg, progress=False)
    left = {item.key.rpartition("/")[2] for item in run_store(cfg).list("evals/")}
    assert {"expert.safetensors", "judge.safetensors"} <= left

    with monkeypatch.context() as patch:
        patch.setattr(lipsync, "learn_sync", killed)
        result = run_eval(cfg, progress=False)["lipsync"]
    files = result["weights"]
    assert set(files) == {"expert", "judge", "wav2lip"}
    for name in ("expert", "judge"):
        data = run_store(cfg).read(f"evals/step-00000020.r0/{files[name]}")
        assert hashlib.sha256(data).hexdigest() == result["networks"][name]["sha256"]
    assert result["networks"]["expert"]["sha256"] != result["networks"]["judge"]["sha256"]
    assert not any("unfinished" in item.key for item in run_store(cfg).list("evals/"))

    # Files of a run serve the next one.
    places = [
        f"eval.lipsync.sync.{name}='{run_store(cfg).url}/evals/step-00000020.r0/{files[name]}'"
        for name in ("expert", "judge")
    ]
    again = asked(make_run, drawn, "eval.lipsync.encoders=[wav2lip]", "run.name=again", *places)
    with monkeypatch.context() as patch:
        patch.setattr(lipsync, "learn_sync", killed)
        second = run_eval(again, progress=False)["lipsync"]
    assert second["networks"]["judge"]["sha256"] == result["networks"]["judge"]["sha256"]
    assert second["metrics"] == result["metrics"]


def test_faces_and_sound_are_in_step_across_samples(drawn: Store) -> None:
    videos = talks(12, FRAMES)
    found = talking_faces(load_dataset(drawn), 0.0)
    assert [len(part) for part in (found.train, found.held_out, found.scored)] == [4, 4, 4]
    face, reader = found.scored[0], FaceReader(drawn, 64)
    [talk] = [each for each in videos if each.name == face.sequence.source]
    heard = np.rint(sound(talk, FRAMES) * 32768) / 32768
    assert np.abs(reader.mel(face) - mel_spectrogram(heard)).max() < 0.05
    shown, labels = pictures(talk, FRAMES, 32)
    frames = reader.frames(face, np.array([5, 70]))
    assert frames.shape == (2, 64, 64, 3)
    small = frames[:, ::2, ::2].astype(int)
    assert np.abs(small - shown[[5, 70]]).mean() < 12
    for box, label_HW in zip(reader.mouths(face, 4), labels, strict=True):
        rows, columns = np.nonzero(label_HW == 5)
        if len(rows):
            assert box is not None
            left, top, right, bottom = (edge // 2 for edge in box)
            assert left <= columns.min() <= columns.max() < right
            assert top <= rows.min() <= rows.max() < bottom


def test_moments_are_different_ones_of_a_face_and_references_are_of_another_moment(drawn: Store) -> None:
    faces = talking_faces(load_dataset(drawn), 0.0).train
    for step in range(20):
        moments = draw_moments(faces, 2 * MOMENTS, 3, step)
        for first in (0, MOMENTS):
            group = moments[first : first + MOMENTS]
            assert len({moment.face.name for moment in group}) == 1
            assert len({moment.first for moment in group}) == MOMENTS
        assert all(0 <= moment.first <= FRAMES - 5 for moment in moments)
        clips = draw_clips(faces, 8, 16, 3, step)
        for clip in clips:
            assert 0 <= clip.first <= FRAMES - 16
            # So many frames that are no clip's lie between it and its reference, on both sides.
            assert 16 <= (clip.reference - clip.first) % FRAMES <= FRAMES - 16
        assert moments == draw_moments(faces, 2 * MOMENTS, 3, step) != draw_moments(faces, 2 * MOMENTS, 3, step + 1)
    for frames in (32, 33, 47, 80):
        for clip_T in windows(frames, 16, 1, 16):
            assert not set(clip_T) & set(reference_of(clip_T, frames))
    # A face of two clips has one other clip for a reference.
    [clip] = draw_clips(faces, 1, FRAMES // 2, 3, 0)
    assert (clip.reference - clip.first) % FRAMES == FRAMES // 2


def test_faces_too_short_for_a_reference_apart_are_left_out(drawn: Store) -> None:
    dataset = load_dataset(drawn)
    assert talking_faces(dataset, 0.0, FRAMES // 2).short == 0
    with pytest.raises(MarlinError, match=rf"of {FRAMES + 2} frames each: .* has 0 and 0"):
        talking_faces(dataset, 0.0, FRAMES // 2 + 1)


def test_parts_of_a_video_are_not_held_out_and_shared_people_are_counted(drawn: Store) -> None:
    dataset = load_dataset(drawn)
    assert talking_faces(dataset, 0.0).shared_people == 0
    [first, *_] = (sample for sample in dataset.samples if sample.split == "train")

    def like_first(field: str) -> Dataset:
        same = {field: getattr(first, field)}
        samples = (replace(each, **same) if each.split == "test" else each for each in dataset.samples)
        return replace(dataset, samples=tuple(samples))

    assert talking_faces(like_first("identity"), 0.0).shared_people == 1
    with pytest.raises(MarlinError, match=r"as .*: preprocess with preprocess\.holdout_identities instead"):
        talking_faces(like_first("source"), 0.0)


@pytest.mark.parametrize(
    ("given", "overrides", "words"),
    [
        (
            {"silent": 2},
            (),
            r"lipsync needs sound, and 2 of 12 samples of .* have none: preprocess it with preprocess\.audio",
        ),
        ({"fps": 30.0}, (), r"lipsync needs 25 frames a second, and .* has 30: preprocess it with preprocess\.fps=25"),
        (
            {"frames": 16},
            ("eval.lipsync.encoders=[wav2lip]",),
            r"of 20 frames each: .* has 0 and 0; set preprocess\.holdout_identities",
        ),
        ({}, ("eval.lipsync.encoders=[videomae]",), r"say where its weights are with eval\.lipsync\.videomae"),
        (
            {},
            ("eval.lipsync.encoders=[wav2lip]", "eval.lipsync.size=50"),
            "faces of 50 pixels can't be halved five times",
        ),
        ({}, ("eval.lipsync.inception=/nowhere.pt",), r"eval\.lipsync\.inception=/nowhere\.pt: no such file"),
        ({}, ("eval.lipsync.sync.expert=/no.pth",), r"eval\.lipsync\.sync\.expert=/no\.pth: no such file"),
        ({}, ("eval.lipsync.sync.judge=/no.pth",), r"eval\.lipsync\.sync\.judge=/no\.pth: no such file"),
        (
            {},
            ("eval.lipsync.encoders=[videomae]", "eval.lipsync.videomae=/no.pth"),
            r"eval\.lipsync\.videomae=/no\.pth: no such file",
        ),
        ({"frames": 24}, (), r"of 32 frames each: .* has 0 and 0"),
        ({}, ("eval.lipsync.sync_weight=0.5", "eval.lipsync.gan_weight=0.5"), "leave nothing for the pictures"),
    ],
)
def test_what_does_not_fit_is_said_before_the_work(
    make_run: MakeRun, drawn: Store, given: dict[str, float], overrides: tuple[str, ...], words: str
) -> None:
    where = open_store(f"{drawn.url}-of-{len(words)}") if given else drawn
    cfg = asked(make_run, where, *overrides, steps=())
    if given:
        frames = int(given.get("frames", 32))
        videos = talks(12, 80)
        silent = [talk.name for talk in videos[: int(given.get("silent", 0))]]
        write_talks(where, cfg, videos, frames, silent=silent, fps=given.get("fps", 25.0))
    with pytest.raises(MarlinError, match=words):
        check_tasks(cfg)


def test_a_few_silent_samples_are_left_out_and_counted(make_run: MakeRun, tmp_path: Path) -> None:
    videos, where = talks(12, 32), open_store(str(tmp_path / "talking"))
    write_talks(where, make_run(steps=()), videos, 32, silent=[videos[0].name])
    found = talking_faces(load_dataset(where), 0.1)
    assert found.silent == 1
    assert len(found.train) == 3


def test_settings_name_all_that_a_result_depends_on(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK, steps=())
    told = lipsync.settings(cfg.eval)
    assert "threads" not in told["lipsync"]
    assert set(told["lipsync"]) == set(type(cfg.eval.lipsync).model_fields) - {"threads"}
    json.dumps(told)
