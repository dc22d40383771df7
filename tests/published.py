"""The network of the published package, `marlin-pytorch`, a peer of tests and benchmarks."""

import sys
import types

from torch import nn

from train.model import Geometry
from train.sizes import ViTSize


def published_network(
    encoder: ViTSize, decoder: ViTSize, geometry: Geometry, *, encoder_only: bool = False
) -> nn.Module:
    """The package's masked autoencoder, or its encoder alone, with fresh weights."""
    # It imports these for reading videos, which is not needed here.
    for name in ("torchvision", "torchvision.io", "ffmpeg"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision.io"].__dict__.setdefault("read_video", None)
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
