"""`marlin export`: each layout is complete, computes the same where its own package can be asked, or is not there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from drawn import Drawn
from drawn_runs import publish, small_config
from safetensors.torch import load_file
from torch.testing import assert_close

from pipeline.checkpoints import fetch_checkpoint, find_checkpoint
from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from train.export import geometry_of, load_model, model_of
from train.formats import FORMATS, export_checkpoint
from train.interop import from_official, from_videomae, is_encoder, to_hugging_face
from train.model import MaskedAutoencoder
from train.onnx_export import check_onnx, open_onnx, run_onnx, write_onnx


@pytest.fixture
def cfg(tmp_path: Path, drawn: Drawn) -> Config:
    """A run with checkpoints of steps 2 and 5."""
    found = small_config(tmp_path / "storage", f"data.dataset='{drawn.store.url}'")
    for step in (2, 5):
        publish(found, step, tmp_path / str(step))
    return found


def weights_of(cfg: Config, folder: Path) -> dict[str, torch.Tensor]:
    run, checkpoint = find_checkpoint(run_store(cfg).url)
    return load_file(fetch_checkpoint(run, checkpoint, folder, ("model.safetensors",)) / "model.safetensors")


def test_the_own_layout_is_loaded_as_a_checkpoint(cfg: Config, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["export", run_store(cfg).url, str(out)]) == 0
    model, saved = load_model(out)
    assert saved == cfg
    expected = weights_of(cfg, tmp_path / "fetched")
    for name, value in model.state_dict().items():
        if name in expected:
            assert_close(value, expected[name], atol=0, rtol=0)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]  # nothing of the work is left


def test_a_checkpoint_by_name(cfg: Config, tmp_path: Path) -> None:
    url = f"{run_store(cfg).url}/checkpoints/step-00000002.r0"
    export_checkpoint(url, tmp_path / "two", "safetensors")
    assert "| checkpoint | run demo, step-00000002.r0 |" in (tmp_path / "two" / "README.md").read_text("utf-8")
    with pytest.raises(UsageError, match=r"no such checkpoint; there are step-00000002\.r0, step-00000005\.r0"):
        find_checkpoint(url.replace("02.r0", "03.r0"))
    with pytest.raises(UsageError, match="no published checkpoint lies there"):
        find_checkpoint(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_published_package_gets_its_names(cfg: Config, tmp_path: Path, encoder_only: bool) -> None:
    export_checkpoint(run_store(cfg).url, tmp_path / "out", "official", encoder_only=encoder_only)
    part = "encoder" if encoder_only else "full"
    theirs = torch.load(tmp_path / "out" / f"marlin_vit_tiny.{part}.pt", weights_only=True)
    expected = weights_of(cfg, tmp_path / "fetched")
    ours = from_official(theirs)
    assert ours.keys() == {name for name in expected if is_encoder(name) or not encoder_only}
    for name, value in ours.items():
        assert_close(value, expected[name], atol=0, rtol=0)


@pytest.mark.parametrize("encoder_only", [False, True])
def test_hugging_face_gets_its_names_and_gives_them_back(cfg: Config, tmp_path: Path, encoder_only: bool) -> None:
    export_checkpoint(run_store(cfg).url, tmp_path / "out", "hugging-face", encoder_only=encoder_only)
    theirs = load_file(tmp_path / "out" / "model.safetensors")
    expected = weights_of(cfg, tmp_path / "fetched")
    ours = from_videomae(theirs)
    assert ours.keys() == {name for name in expected if is_encoder(name) or not encoder_only}
    for name, value in ours.items():
        assert_close(value, expected[name], atol=0, rtol=0)
    layer = "encoder.layer.0.attention.attention"
    assert f"{'' if encoder_only else 'videomae.'}{layer}.query.weight" in theirs
    assert any(name.endswith(f"{layer}.q_bias") for name in theirs)
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["VideoMAEModel" if encoder_only else "VideoMAEForPreTraining"]
    assert (config["image_size"], config["num_frames"], config["hidden_size"]) == (32, cfg.data.frames, 192)


def test_pixels_are_scaled_by_the_embedding_for_the_published_package(tmp_path: Path, drawn: Drawn) -> None:
    cfg = small_config(tmp_path / "storage", f"data.dataset='{drawn.store.url}'", "data.normalize=imagenet")
    publish(cfg, 1, tmp_path / "one")
    export_checkpoint(run_store(cfg).url, tmp_path / "out", "official")
    theirs = torch.load(tmp_path / "out" / "marlin_vit_tiny.full.pt", weights_only=True)
    scaled = model_of(cfg).eval()
    scaled.load_state_dict(weights_of(cfg, tmp_path / "fetched"))
    plain = model_of(small_config(tmp_path / "plain")).eval()  # reads pixels as they are, as the package does
    plain.load_state_dict(from_official(theirs))
    clips = torch.rand(2, 3, cfg.data.frames, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_close(plain.encode(clips, pool=True), scaled.encode(clips, pool=True), atol=1e-5, rtol=1e-5)


def test_pixels_are_scaled_outside_for_hugging_face(tmp_path: Path, drawn: Drawn) -> None:
    cfg = small_config(tmp_path / "storage", f"data.dataset='{drawn.store.url}'", "data.normalize=imagenet")
    publish(cfg, 1, tmp_path / "one")
    export_checkpoint(run_store(cfg).url, tmp_path / "out", "hugging-face")
    scaling = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text("utf-8"))
    assert scaling["image_mean"] == [0.485, 0.456, 0.406]
    assert scaling["rescale_factor"] == pytest.approx(1 / 255)


def test_the_last_layer_is_sorted_channel_last(cfg: Config, tmp_path: Path) -> None:
    state = weights_of(cfg, tmp_path / "fetched")
    theirs, geometry = to_hugging_face(state, geometry_of(cfg)), geometry_of(cfg)
    ours = state["head.weight"].view(3, geometry.tubelet, geometry.patch, geometry.patch, -1)
    hers = theirs["decoder.head.weight"].view(geometry.tubelet, geometry.patch, geometry.patch, 3, -1)
    assert_close(hers[1, 2, 3, 0], ours[0, 1, 2, 3])
    assert_close(hers[0, 7, 5, 2], ours[2, 0, 7, 5])


def network_of(cfg: Config, tmp_path: Path) -> MaskedAutoencoder:
    export_checkpoint(run_store(cfg).url, tmp_path / "own", "safetensors")
    return load_model(tmp_path / "own")[0]


@pytest.mark.parametrize("normalize", ["none", "imagenet"])
def test_onnx_runtime_gives_the_features_of_any_number_of_clips(tmp_path: Path, drawn: Drawn, normalize: str) -> None:
    cfg = small_config(tmp_path / "storage", f"data.dataset='{drawn.store.url}'", f"data.normalize={normalize}")
    publish(cfg, 1, tmp_path / "one")
    out = tmp_path / "out"
    assert main(["export", run_store(cfg).url, str(out), "--format", "onnx"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.onnx"]
    model, session = network_of(cfg, tmp_path), open_onnx(out / "model.onnx")
    [taken], [given] = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("clips", "tensor(float)", ["batch", 3, 16, 32, 32])
    assert (given.name, given.type, given.shape) == ("features", "tensor(float)", ["batch", 192])
    for batch in (1, 2, 5):
        clips = torch.rand(batch, 3, 16, 32, 32)
        with torch.inference_mode():
            expected = model.encode(clips, pool=True)
        assert_close(torch.from_numpy(run_onnx(session, clips.numpy())), expected, atol=1e-4, rtol=0)


def test_the_card_of_onnx_is_run(cfg: Config, tmp_path: Path) -> None:
    export_checkpoint(run_store(cfg).url, tmp_path / "out", "onnx")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| interface | opset 17; input `clips`, float32 (batch, 3, 16, 32, 32); output `features`, float32 " in card
    assert "A licence is to be chosen" in card
    code = card.partition("```python")[2].partition("```")[0] + "print(features.shape)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, check=True)
    assert ended.stdout == b"(1, 192)\n"


def test_a_file_of_other_weights_is_found_out(cfg: Config, tmp_path: Path) -> None:
    model = network_of(cfg, tmp_path)
    write_onnx(tmp_path / "model.onnx", model)
    check_onnx(tmp_path / "model.onnx", model)
    with torch.no_grad():
        model.encoder.norm.bias[7] += 2e-4
    with pytest.raises(MarlinError, match=r"model\.onnx: ONNX Runtime's features of 1 random clips differ .* 2\.0e-04"):
        check_onnx(tmp_path / "model.onnx", model)
    with torch.no_grad():
        model.encoder.norm.bias[7] = torch.nan
    with pytest.raises(MarlinError, match="by nan"):
        check_onnx(tmp_path / "model.onnx", model)


@pytest.mark.parametrize(
    ("limit", "said"), [("TOLERANCE", "differ from PyTorch's by"), ("LARGEST", "MB, one ONNX file holds 0 B")]
)
def test_a_file_that_can_t_be_trusted_is_not_left(
    cfg: Config, tmp_path: Path, limit: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"train.onnx_export.{limit}", 0)
    with pytest.raises(MarlinError, match=said):
        export_checkpoint(run_store(cfg).url, tmp_path / "deep" / "out", "onnx")
    assert not list((tmp_path / "deep").iterdir())


def test_weights_of_another_network_are_no_onnx_file(
    cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = cfg.model_copy(update={"model": cfg.model.model_copy(update={"size": "small"})})
    publish(cfg, 6, tmp_path / "six", trained)
    assert main(["export", run_store(cfg).url, str(tmp_path / "out"), "--format", "onnx"]) == 1
    assert "model.safetensors of the checkpoint: it is not of this network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_the_card_says_what_it_is(cfg: Config, tmp_path: Path, name: str) -> None:
    assert main(["export", run_store(cfg).url, str(tmp_path / "out"), "--format", name, "--encoder"]) == 0
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "ViT-tiny, encoder, 1." in card
    assert "5 updates of" in card
    assert str(tmp_path) not in card  # where it lay is nobody's business


def test_what_is_there_is_not_touched(cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert main(["export", run_store(cfg).url, str(tmp_path / "out")]) == 2
    assert "exists already: give a new folder" in capsys.readouterr().err


def test_a_damaged_checkpoint_leaves_nothing(cfg: Config, tmp_path: Path) -> None:
    run, checkpoint = find_checkpoint(run_store(cfg).url)
    run.write(f"{checkpoint.prefix}/model.safetensors", b"damaged")
    assert main(["export", run.url, str(tmp_path / "deep" / "out")]) == 1
    assert not list((tmp_path / "deep").iterdir())
