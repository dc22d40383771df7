"""Operations of an update, against sums written out by hand."""

import pytest
import torch
from drawn import MakeConfig

from pipeline.config.schema import Config
from train.export import geometry_of
from train.flops import peak_flops, update_flops
from train.masking import visible_count
from train.model import Geometry
from train.sizes import SIZES, ViTSize


def block_flops(size: ViTSize, tokens: int, asked: int | None = None) -> int:
    """Forward operations of a block: projections, attention and MLP; of `asked` tokens where not all are wanted."""
    out = tokens if asked is None else asked
    wide = size.width**2
    return 2 * (3 * tokens * wide + 2 * out * tokens * size.width + out * wide + 8 * out * wide)


def generator_flops(geometry: Geometry, visible: int) -> tuple[int, int]:
    """Forward operations of a clip, and those of the first layer among them."""
    encoder, decoder = SIZES["tiny"].encoder, SIZES["tiny"].decoder
    hidden = geometry.tokens - visible
    first = 2 * visible * geometry.cube * encoder.width
    blocks = encoder.depth * block_flops(encoder, visible)
    blocks += (decoder.depth - 1) * block_flops(decoder, geometry.tokens)
    blocks += block_flops(decoder, geometry.tokens, hidden)
    rest = 2 * visible * encoder.width * decoder.width + 2 * hidden * decoder.width * geometry.cube
    return first + blocks + rest, first


def critic_flops(geometry: Geometry, visible: int) -> tuple[int, int]:
    """Forward operations on the hidden cubes of a clip, by layer."""
    hidden, width = geometry.tokens - visible, 4 * SIZES["tiny"].decoder.width
    return 2 * hidden * geometry.cube * width, 2 * hidden * width


@pytest.fixture
def cfg(make_config: MakeConfig) -> Config:
    small = make_config(data={"source": "synthetic"})
    update = {"model": small.model.model_copy(update={"size": "tiny", "patch": 8})}
    return small.model_copy(update=update)


def with_critic(cfg: Config, **changes: object) -> Config:
    return cfg.model_copy(update={"critic": cfg.critic.model_copy(update=changes)})


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_update_costs_what_its_matrix_products_cost(cfg: Config, micro_batches: int, steps: int) -> None:
    geometry = geometry_of(cfg)
    visible = visible_count(geometry.tubelets, geometry.patches, cfg.data.mask.ratio, cfg.data.mask.rounding)
    forward, first = generator_flops(geometry, visible)
    # Backward costs twice the forward pass, but nobody asks for the gradient of the pixels.
    clip = 3 * forward - first
    if steps:
        inner, outer = critic_flops(geometry, visible)
        clip += 2 * (inner + outer)  # through the frozen critic and back
        clip += steps * 2 * (2 * inner + 3 * outer)  # real and reconstructed cubes
        clip += forward * (micro_batches > 1)
    changed = with_critic(cfg, weight=0.01 if steps else 0.0, steps=max(steps, 1))
    assert update_flops(changed, micro_batches) == clip * cfg.train.global_batch


def test_a_gradient_penalty_costs_more_and_recomputation_counts_nothing(cfg: Config) -> None:
    plain = update_flops(cfg, 1)
    assert update_flops(with_critic(cfg, lipschitz="gradient-penalty"), 1) > plain
    recomputing = cfg.model_copy(update={"model": cfg.model.model_copy(update={"checkpoint_activations": True})})
    assert update_flops(recomputing, 1) == plain


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA RTX A6000", "bf16", 154.8e12),
        ("NVIDIA RTX A6000", "fp32", 38.7e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 PCIe", "fp16", 756e12),
        ("NVIDIA RTX A4000", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("Something new", "bf16", None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: str, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda", 0), precision) == peak


def test_the_peak_of_a_cpu_is_not_known() -> None:
    assert peak_flops(torch.device("cpu"), "fp32") is None
