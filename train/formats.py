"""A published checkpoint in the layouts of others, with a model card: `marlin export`."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints import Checkpoint, fetch_checkpoint, find_checkpoint
from pipeline.config.load import dump_config, load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import os_error
from train.export import geometry_of, model_of
from train.init import load_weights
from train.interop import State, is_encoder, to_hugging_face, to_official
from train.model import PIXEL_SCALES
from train.onnx_export import INPUT, OPSET, OUTPUT, check_onnx, input_shape, write_onnx
from train.sizes import CHANNELS, SIZES

Format = Literal["safetensors", "official", "hugging-face", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
_WEIGHTS, _CRITIC, _CONFIG, _ONNX = "model.safetensors", "critic.safetensors", "config.yaml", "model.onnx"
_LIBRARIES: dict[Format, str] = {
    "safetensors": "pytorch",
    "official": "pytorch",
    "hugging-face": "transformers",
    "onnx": "onnx",
}


def export_checkpoint(url: str, out: Path, format: Format, *, encoder_only: bool = False) -> None:
    """Write a checkpoint's weights as files of a format, with a model card.

    Args:
        url: a run, or one of its checkpoints (`pipeline.checkpoints.find_checkpoint`).
        out: folder to make; it appears whole or not at all.
        format: whose names and files.
        encoder_only: leave out decoder and critic, as ONNX does in any case.

    Raises:
        UsageError: there is no such checkpoint, or the folder is there already.
        MarlinError: the checkpoint is damaged, or ONNX Runtime computes something else of it.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: give a new folder")
    run, checkpoint = find_checkpoint(url)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            source, target = Path(scratch) / "checkpoint", Path(scratch) / "out"
            target.mkdir(parents=True)
            fetch_checkpoint(run, checkpoint, source, (_WEIGHTS, _CRITIC, _CONFIG))
            cfg, weights = load_config(str(source / _CONFIG)), dict(load_file(source / _WEIGHTS))
            if encoder_only or format == "onnx":
                weights = {name: value for name, value in weights.items() if is_encoder(name)}
            writers: dict[Format, Callable[[Path, Config, State], None]] = {
                "safetensors": _write_safetensors,
                "official": _write_official,
                "hugging-face": _write_hugging_face,
                "onnx": _write_onnx,
            }
            writers[format](target, cfg, weights)
            if format == "safetensors" and not encoder_only and (source / _CRITIC).exists():
                shutil.copy(source / _CRITIC, target)
            (target / "README.md").write_text(_card(cfg, checkpoint, format, weights), "utf-8")
            target.rename(out)
    except OSError as error:
        raise os_error(out, error) from None


def _write_safetensors(target: Path, cfg: Config, weights: State) -> None:
    save_file(weights, target / _WEIGHTS)
    (target / _CONFIG).write_text(dump_config(cfg), "utf-8")


def _write_official(target: Path, cfg: Config, weights: State) -> None:
    torch.save(to_official(_scaling_inside(weights, cfg), geometry_of(cfg)), target / _official_name(cfg, weights))


def _scaling_inside(weights: State, cfg: Config) -> State:
    """Weights whose embedding scales the pixels, for readers that don't: W (x - mean) / spread + b."""
    each = geometry_of(cfg).cube // CHANNELS
    mean_P, spread_P = (torch.tensor(scale).repeat_interleave(each) for scale in PIXEL_SCALES[cfg.data.normalize])
    weight = weights["embed.weight"] / spread_P
    return {**weights, "embed.weight": weight, "embed.bias": weights["embed.bias"] - weight @ mean_P}


def _write_hugging_face(target: Path, cfg: Config, weights: State) -> None:
    save_file(to_hugging_face(weights, geometry_of(cfg)), target / _WEIGHTS, {"format": "pt"})
    for name, content in (
        ("config.json", _architecture(cfg, weights)),
        ("preprocessor_config.json", _preprocessor(cfg)),
    ):
        (target / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _write_onnx(target: Path, cfg: Config, weights: State) -> None:
    model = model_of(cfg)
    try:
        load_weights(model, weights)
    except UsageError as error:
        raise MarlinError(f"{_WEIGHTS} of the checkpoint: {error}") from None
    write_onnx(target / _ONNX, model)
    check_onnx(target / _ONNX, model)


def _architecture(cfg: Config, weights: State) -> dict[str, Any]:
    """`VideoMAEConfig` of a network."""
    size, geometry = SIZES[cfg.model.size], geometry_of(cfg)
    return {
        "architectures": ["VideoMAEForPreTraining" if _has_decoder(weights) else "VideoMAEModel"],
        "model_type": "videomae",
        "image_size": geometry.size,
        "patch_size": geometry.patch,
        "num_channels": CHANNELS,
        "num_frames": geometry.frames,
        "tubelet_size": geometry.tubelet,
        "hidden_size": size.encoder.width,
        "num_hidden_layers": size.encoder.depth,
        "num_attention_heads": size.encoder.heads,
        "intermediate_size": 4 * size.encoder.width,
        "decoder_hidden_size": size.decoder.width,
        "decoder_num_hidden_layers": size.decoder.depth,
        "decoder_num_attention_heads": size.decoder.heads,
        "decoder_intermediate_size": 4 * size.decoder.width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,  # PyTorch's default, as in `train.model`
        "qkv_bias": True,
        "use_mean_pooling": False,
        "norm_pix_loss": cfg.train.normalize_target,
    }


def _preprocessor(cfg: Config) -> dict[str, Any]:
    """What `VideoMAEImageProcessor` does to the pixels of a crop."""
    mean, spread = PIXEL_SCALES[cfg.data.normalize]
    side = cfg.preprocess.size
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(spread),
    }


def _card(cfg: Config, checkpoint: Checkpoint, format: Format, weights: State) -> str:
    """A model card: what it is, how it was trained, how it is loaded."""
    part = "encoder and decoder" if _has_decoder(weights) else "encoder"
    info, train = checkpoint.info, cfg.train
    count = sum(value.numel() for value in weights.values())
    start = f"weights of sha256 {info['init']['sha256']}" if info.get("init") else "random weights"
    facts = {
        "network": f"ViT-{cfg.model.size}, {part}, {count / 1e6:.1f} million parameters",
        "input": f"face crops, {cfg.data.frames} RGB frames of {cfg.preprocess.size}×{cfg.preprocess.size}, every "
        f"{cfg.data.stride}. of the video, pixels in [0, 1]"
        + (", normalised inside the model" if cfg.data.normalize != "none" and format != "hugging-face" else ""),
        "trained": f"{checkpoint.step} updates of {train.global_batch} clips ({info.get('samples', 0)} clips), "
        f"from {start}, {train.precision}, seed {train.seed}",
        "masking": f"{cfg.data.mask.strategy}, {cfg.data.mask.ratio:.0%} of the cubes",
        "critic": f"λ = {cfg.critic.weight:g}, {cfg.critic.lipschitz}" if cfg.critic.weight else "none",
        "dataset": f"corpus {cfg.corpus.name}, identity {info.get('dataset')}",
        "checkpoint": f"run {cfg.run.name}, {checkpoint.name}",
    }
    if format == "onnx":
        width = SIZES[cfg.model.size].encoder.width
        facts["interface"] = (
            f"opset {OPSET}; input `{INPUT}`, float32 {_shape(input_shape(geometry_of(cfg)))}; output `{OUTPUT}`, "
            f"float32 {_shape(('batch', width))}, the norm of the mean token"
        )
    table = "\n".join(f"| {name} | {text} |" for name, text in facts.items())
    return f"""---
library_name: {_LIBRARIES[format]}
tags: [video, face, self-supervised, masked-autoencoder]
---

# {cfg.run.name}

A face-video encoder trained without labels, by the method of MARLIN (Cai et al., CVPR 2023).

| | |
|---|---|
{table}

## Loading

```python
{_loading(cfg, format, weights)}
```

Nothing is measured here: see the evaluation results of the run. A licence is to be chosen by who publishes this; the
terms of the corpus, and of weights that the training started from, may bind that choice. Faces are personal data.
"""


def _loading(cfg: Config, format: Format, weights: State) -> str:
    if format == "safetensors":
        return (
            "from pathlib import Path\nfrom train.export import load_model\nmodel, cfg = load_model(Path('.'))"
            if _has_decoder(weights)
            else "from safetensors.torch import load_file\nweights = load_file('model.safetensors')"
        )
    if format == "official":
        arguments = f"'marlin_vit_{cfg.model.size}_ytf', '{_official_name(cfg, weights)}'"
        return f"from marlin_pytorch import Marlin\nmodel = Marlin.from_file({arguments})"
    if format == "onnx":
        shape = input_shape(geometry_of(cfg))
        return (
            f"import numpy\nimport onnxruntime\nsession = onnxruntime.InferenceSession('{_ONNX}')\n"
            f"clips = numpy.zeros({(1, *shape[1:])}, 'float32')\n"
            f"[features] = session.run(['{OUTPUT}'], {{'{INPUT}': clips}})"
        )
    cls = _architecture(cfg, weights)["architectures"][0]
    return f"from transformers import {cls}\nmodel = {cls}.from_pretrained('.')"


def _shape(axes: Sequence[str | int]) -> str:
    return f"({', '.join(map(str, axes))})"


def _official_name(cfg: Config, weights: State) -> str:
    return f"marlin_vit_{cfg.model.size}.{'full' if _has_decoder(weights) else 'encoder'}.pt"


def _has_decoder(weights: dict[str, Tensor]) -> bool:
    return "mask_token" in weights
