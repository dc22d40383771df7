"""A packed encoder gives what the encoder gives."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from eval.packed import can_pack, packed
from pipeline.config.load import load_config
from train.export import model_of

SMALL = ["storage.root=/nowhere", "preprocess.size=32", "preprocess.patch=8", "model.patch=8"]


class Counted(TorchDispatchMode):
    """How often each operator runs within this context."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_features_are_those_of_the_model_and_no_linear_layer_is_left_out(dtype: torch.dtype, apart: float) -> None:
    torch.manual_seed(0)
    cfg = load_config("demo", SMALL)
    model = model_of(cfg).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value)
    clips = torch.rand(2, 3, cfg.data.frames, 32, 32)
    with torch.no_grad():
        expected = model.encode(clips, pool=True)
        fast = packed(model.to(dtype))
        with Counted() as seen:
            found = fast.encode(clips.to(dtype), pool=True)
        again = model.float().encode(clips, pool=True)
    assert (found.float() - expected).abs().max() < apart
    assert (again - expected).abs().max() < apart
    assert not {"aten::addmm", "aten::linear", "aten::gelu"} & set(seen.calls)
    assert seen.calls["mkldnn::_linear_pointwise"] == 1 + 4 * len(model.encoder.blocks)


@pytest.mark.parametrize(("dtype", "packs"), [(torch.float32, True), (torch.float64, False)])
def test_what_onednn_takes_is_packed(dtype: torch.dtype, packs: bool) -> None:
    assert can_pack(nn.Linear(2, 2).to(dtype)) == packs
