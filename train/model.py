"""The masked autoencoder for face video (MARLIN, section 3.2) and its critic.

Shapes: B clips, C channels, T frames, H×W pixels, N cubes of a clip, V visible and M hidden ones (V + M = N),
P values of a cube, D width. Masks are boolean, True means visible.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.attention import attend
from train.cubes import patchify
from train.linear import Linear, linear
from train.sizes import CHANNELS, SIZES, TUBELET, ViTSize

PIXEL_SCALES = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and spread of red, green and blue by the values of `data.normalize`."""


@dataclass(frozen=True)
class Geometry:
    """Frames and pixels of a clip, and the cube it is cut into."""

    frames: int = 16
    size: int = 224
    patch: int = 16
    tubelet: int = TUBELET

    @property
    def tubelets(self) -> int:
        """Tubelet frames of a clip."""
        return self.frames // self.tubelet

    @property
    def side(self) -> int:
        """Patches in a row of a frame."""
        return self.size // self.patch

    @property
    def patches(self) -> int:
        """Patches of a frame."""
        return self.side**2

    @property
    def tokens(self) -> int:
        """Cubes of a clip."""
        return self.tubelets * self.patches

    @property
    def cube(self) -> int:
        """Values of a cube."""
        return CHANNELS * self.tubelet * self.patch**2


def sincos_table(positions: int, width: int) -> Tensor:
    """Fixed sine-cosine positions, one table over the flattened cube index: (positions, width)."""
    exponent = 2 * torch.div(torch.arange(width), 2, rounding_mode="floor") / width
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / torch.pow(10000.0, exponent.double())
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()


class Attention(nn.Module):
    """Multi-head self-attention; keys carry no bias, which softmax would cancel anyway."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, width)

    def forward(self, x_BND: Tensor, first: int = 0) -> Tensor:
        """Every token from `first` on, mixed with all."""
        b, n, d = x_BND.shape
        q, k, v = self.project(x_BND)
        mixed = attend(q[:, :, first:], k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n - first, d))
        return out

    def project(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head: (B, heads, N, D / heads) each."""
        b, n, d = x_BND.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        # Three views: their gradients are put together by one copy, which a permuted (3, B, heads, N, d) needs two for.
        parts = linear(x_BND, self.qkv.weight, bias).chunk(3, dim=-1)
        q, k, v = (part.view(b, n, self.heads, d // self.heads).transpose(1, 2) for part in parts)
        return q, k, v


class Block(nn.Module):
    """Pre-norm transformer block with an MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))

    def forward(self, x_BND: Tensor, first: int = 0) -> Tensor:
        """The block's output for the tokens from `first` on; it sees all."""
        x_BND = x_BND[:, first:] + self.attn(self.norm1(x_BND), first)
        out: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out


class Transformer(nn.Module):
    """Blocks and a final norm; activations are recomputed in the backward pass when asked."""

    def __init__(self, size: ViTSize, recompute: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.recompute = recompute

    def mix(self, x_BND: Tensor, first: int = 0) -> Tensor:
        """All blocks, without the final norm; the last one leaves out the tokens before `first`."""
        for block in self.blocks:
            start = first if block is self.blocks[-1] else 0
            if self.recompute and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, start, use_reentrant=False)
            else:
                x_BND = block(x_BND, start)
        return x_BND

    def forward(self, x_BND: Tensor) -> Tensor:
        out: Tensor = self.norm(self.mix(x_BND))
        return out


class MaskedAutoencoder(nn.Module):
    """Encoder over visible cubes, narrow decoder over all of them (MARLIN, equations 1 and 2).

    Pixels are in [0, 1] on both sides. Where they are normalised, that happens in here and to what the encoder sees
    alone, as VideoMAE does it: targets, reconstructions, pictures and whoever asks for features know nothing of it.

    Args:
        geometry: clip and cube.
        encoder: width, depth and heads of the encoder.
        decoder: the same of the decoder.
        recompute: trade compute for memory in the backward pass.
        normalize: a value of `data.normalize`.
    """

    enc_pos: Tensor
    dec_pos: Tensor
    pixel_mean_P: Tensor
    pixel_spread_P: Tensor

    def __init__(
        self,
        geometry: Geometry,
        encoder: ViTSize,
        decoder: ViTSize,
        *,
        recompute: bool = False,
        normalize: str = "none",
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.normalize = normalize
        self.embed = Linear(geometry.cube, encoder.width)
        self.encoder = Transformer(encoder, recompute)
        self.enc_to_dec = Linear(encoder.width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.decoder = Transformer(decoder, recompute)
        self.head = Linear(decoder.width, geometry.cube)
        self.register_buffer("enc_pos", sincos_table(geometry.tokens, encoder.width), persistent=False)
        self.register_buffer("dec_pos", sincos_table(geometry.tokens, decoder.width), persistent=False)
        for name, values in zip(("pixel_mean_P", "pixel_spread_P"), PIXEL_SCALES[normalize], strict=True):
            channels = torch.tensor(values).repeat_interleave(geometry.cube // CHANNELS)
            self.register_buffer(name, channels, persistent=False)
        self.apply(_init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, cubes_BNP: Tensor, visible_BV: Tensor, hidden_BM: Tensor) -> Tensor:
        """Reconstruct the hidden cubes.

        Args:
            cubes_BNP: cubes of the clips (`train.cubes.patchify`), values in [0, 1].
            visible_BV: indices of the visible cubes.
            hidden_BM: indices of the hidden ones.

        Returns:
            (B, M, P), the cubes named by ``hidden_BM`` in that order.
        """
        encoded_BVD = self.encoder(self._tokens(cubes_BNP, visible_BV))
        seen_BVD = self.enc_to_dec(encoded_BVD)
        positions = self.dec_pos.to(seen_BVD.dtype)
        seen_BVD = seen_BVD + positions[visible_BV]
        asked_BMD = self.mask_token + positions[hidden_BM]
        mixed_BMD = self.decoder.mix(torch.cat([seen_BVD, asked_BMD], dim=1), first=visible_BV.shape[1])
        out: Tensor = self.head(self.decoder.norm(mixed_BMD))
        return out

    def encode(self, clips_BCTHW: Tensor, pool: bool = False) -> Tensor:
        """Features with every cube visible.

        Args:
            clips_BCTHW: clips in [0, 1].
            pool: return the norm of the mean token, as published, instead of all normed tokens.

        Returns:
            (B, N, D), or (B, D) when pooled.
        """
        mixed_BND = self.encoder.mix(self.embed_clips(clips_BCTHW))
        out: Tensor = self.encoder.norm(mixed_BND.mean(1) if pool else mixed_BND)
        return out

    def embed_clips(self, clips_BCTHW: Tensor) -> Tensor:
        """What the encoder's first block is given when every cube is visible: cubes with positions, (B, N, D)."""
        tokens_BND = self._embed(patchify(clips_BCTHW, self.geometry.tubelet, self.geometry.patch))
        return tokens_BND + self.enc_pos.to(tokens_BND.dtype)

    def _tokens(self, cubes_BNP: Tensor, visible_BV: Tensor) -> Tensor:
        """Embed only the cubes that the encoder sees."""
        embedded = self._embed(gather_cubes(cubes_BNP, visible_BV))
        return embedded + self.enc_pos[visible_BV].to(embedded.dtype)

    def _embed(self, cubes_BKP: Tensor) -> Tensor:
        if self.normalize != "none":
            # DeepSpeed leaves these in 32 bits.
            cubes_BKP = ((cubes_BKP - self.pixel_mean_P) / self.pixel_spread_P).to(cubes_BKP.dtype)
        embedded: Tensor = self.embed(cubes_BKP)
        return embedded


class Critic(nn.Module):
    """MLP that scores cubes for the WGAN loss (MARLIN, section 3.3): P → 4 × decoder width → 1."""

    def __init__(self, cube: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Linear(cube, hidden), nn.LeakyReLU(), Linear(hidden, 1))
        self.apply(_init_weights)

    def forward(self, cubes_BMP: Tensor) -> Tensor:
        """Score of each cube, without its last axis: (B, M)."""
        scores: Tensor = self.layers(cubes_BMP).squeeze(-1)
        return scores


def split_indices(mask_BN: Tensor, visible: int) -> tuple[Tensor, Tensor]:
    """Indices of visible and hidden cubes, each ascending: (B, V) and (B, M).

    ``visible`` is the number of True in every row. It is passed in because counting would wait for the device.
    """
    order_BN = mask_BN.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order_BN[:, :visible], order_BN[:, visible:]


def gather_cubes(cubes_BNP: Tensor, index_BM: Tensor) -> Tensor:
    """The cubes of each clip that ``index_BM`` names: (B, M, P)."""
    clips, tokens, _ = cubes_BNP.shape
    # Whole rows are copied this way; `gather` would look up every value by itself.
    row_BM = index_BM + torch.arange(clips, device=index_BM.device)[:, None] * tokens
    return cubes_BNP.flatten(0, 1).index_select(0, row_BM.flatten()).view(*index_BM.shape, -1)


def build_model(
    size: str, geometry: Geometry, *, recompute: bool = False, normalize: str = "none"
) -> MaskedAutoencoder:
    """Masked autoencoder of a named size (`train.sizes.SIZES`) with fresh weights."""
    sizes = SIZES[size]
    return MaskedAutoencoder(geometry, sizes.encoder, sizes.decoder, recompute=recompute, normalize=normalize)


def build_critic(size: str, geometry: Geometry) -> Critic:
    """Critic that goes with `build_model` of the same size."""
    return Critic(geometry.cube, 4 * SIZES[size].decoder.width)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
