"""The network of the published package, `marlin-pytorch`, a peer of tests and benchmarks."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from train.model import Geometry
from train.sizes import ViTSize


@contextmanager
def _stand_ins() -> Iterator[None]:
    """The package imports these for reading videos, and needs one function of each; nobody else shall find them."""
    video, probe, package = (types.ModuleType(name) for name in ("torchvision.io", "ffmpeg", "torchvision"))
    video.__dict__["read_video"], probe.__dict__["probe"], package.__dict__["io"] = _read_video, _probe, video
    absent = [module for module in (video, probe, package) if module.__name__ not in sys.modules]
    sys.modules.update({module.__name__: module for module in absent})
    try:
        yield
    finally:
        for module in absent:
            del sys.modules[module.__name__]


def published_network(
    encoder: ViTSize, decoder: ViTSize, geometry: Geometry, *, encoder_only: bool = False
) -> nn.Module:
    """The package's masked autoencoder, or its encoder alone, with fresh weights."""
    with _stand_ins():
        from marlin_pytorch.model.marlin import Marlin

    network: nn.Module = Marlin(
        img_size=geometry.size,
        patch_size=geometry.patch,
        n_frames=geometry.frames,
        encoder_embed_dim=encoder.width,
        encoder_depth=encoder.depth,
        encoder_num_heads=encoder.heads,
        decoder_embed_dim=decoder.width,
        decoder_depth=decoder.depth,
        decoder_num_heads=decoder.heads,
        mlp_ratio=4.0,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        norm_layer="LayerNorm",
        init_values=0.0,
        tubelet_size=geometry.tubelet,
        as_feature_extractor=encoder_only,
    )
    return network


def _read_video(path: str) -> tuple[torch.Tensor, None, None]:
    """All frames (T, H, W, C), as `torchvision.io.read_video` gives them."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)), None, None


def _probe(path: str) -> dict[str, Any]:
    """The part of `ffmpeg.probe` that tells the number of frames."""
    with av.open(path) as container:
        return {"streams": [{"nb_frames": str(container.streams.video[0].frames)}]}
