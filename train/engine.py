"""DeepSpeed engines of generator and critic, in one process group."""

import os
import shutil
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig
from pipeline.config.support import Cell, refusal
from pipeline.errors import UsageError
from train.leanzero import make_lean
from train.world import World, choose_accelerator

# What the networks compute in; losses are summed in 32 bits always.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Values reduced at a time. DeepSpeed sets so much memory aside for each network, 2 GB of it unless told otherwise.
BUCKET = 25_000_000


def refuse_unsupported(cell: Cell) -> None:
    """Refuse what this machine can't train; what no machine can was refused with the configuration.

    Raises:
        UsageError: the reason.
    """
    choose_accelerator()
    from deepspeed.accelerator import get_accelerator

    if reason := refusal(cell, fp16_works=bool(get_accelerator().is_fp16_supported())):
        raise UsageError(reason)


def require_compiler() -> None:
    """Look for what `torch.compile` needs beside Python: it would fail in the first step, at length.

    Raises:
        UsageError: there is no C++ compiler.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    if not any(map(shutil.which, names)):
        raise UsageError(f"model.compile=true needs a C++ compiler ({', '.join(names)}): install one, or leave it out")


def make_engine(module: nn.Module, cfg: TrainConfig, micro_batches: int, stage: int, *, offload: bool = False) -> Any:
    """A DeepSpeed engine with AdamW around ``module``; the trainer sets the learning rate before each update.

    Args:
        module: network with fresh weights, the same on every rank.
        cfg: batch sizes, precision and optimiser.
        micro_batches: micro batches of one update on each rank.
        stage: ZeRO stage.
        offload: keep 32-bit weights and momenta in host memory and update them there.
    """
    import deepspeed

    bucket = min(BUCKET, sum(parameter.numel() for parameter in module.parameters()))
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": bucket}
    if stage == 3:  # DeepSpeed keeps 10⁹ weights whole once they were gathered: all of a ViT-L
        zero |= {"stage3_max_live_parameters": 2 * BUCKET, "stage3_max_reuse_distance": 2 * BUCKET}
        zero["stage3_prefetch_bucket_size"] = bucket
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_batch_size": cfg.global_batch,
        "train_micro_batch_size_per_gpu": cfg.micro_batch,
        "gradient_accumulation_steps": micro_batches,
        "steps_per_print": 0x7FFFFFFF,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1.0 unless told; the paper does not clip
        "bf16": {"enabled": cfg.precision == "bf16"},
        # Losses are scaled dynamically: half at an overflow (that update is left out), double after 1000 without. From
        # 2^15 on, as the gradient of the critic's last bias is the scale itself, and 2^16 is no number of fp16.
        "fp16": {"enabled": cfg.precision == "fp16", "loss_scale": 0, "initial_scale_power": 15, "hysteresis": 1},
        "zero_optimization": zero,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": cfg.base_lr,
                "betas": list(cfg.betas),
                "weight_decay": cfg.weight_decay,
                # PyTorch's, which needs no compiler. Fused, it passes over the weights once instead of a dozen times.
                "torch_adam": True,
                "fused": True,
            },
        },
    }
    # Not the local rank: a launcher may show each rank its own GPU only.
    place = SimpleNamespace(device_rank=torch.cuda.current_device() if torch.cuda.is_available() else 0)
    engine, *_ = deepspeed.initialize(place, model=module, model_parameters=module.parameters(), config=settings)
    if stage in (1, 2) and not offload:
        make_lean(engine.optimizer)
    if stage == 0 and torch.distributed.get_world_size() == 1:
        # There is nobody to average gradients with; DeepSpeed would copy them all twice.
        engine.enable_backward_allreduce = False
    return engine


def set_learning_rate(engine: Any, rate: float) -> None:
    """Use ``rate`` for the next update."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def set_adamw(engine: Any, cfg: TrainConfig) -> None:
    """Use the configured momenta and weight decay, whatever a checkpoint brought."""
    for group in engine.optimizer.param_groups:
        group["betas"], group["weight_decay"] = tuple(cfg.betas), cfg.weight_decay


def full_parameters(engine: Any) -> dict[str, Tensor]:
    """Every parameter whole, in 32 bits, on the CPU; a collective call under ZeRO."""
    return {
        name: _master(parameter).detach().float().cpu().clone() for name, parameter in engine.module.named_parameters()
    }


def update_parameters(engine: Any, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every parameter, the 32-bit master copy of ZeRO 1 and 2 included; a collective call.

    Changing only ``parameter.data`` would be undone by the optimiser's next update.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    with torch.no_grad():
        for parameter in engine.module.parameters():
            changed = change(_master(parameter))
            if hasattr(parameter, "_hp_mapping"):
                safe_set_full_fp32_param(parameter, changed)
            parameter.data.copy_(changed)


def over_ranks(mean: Mapping[str, Tensor], most: Mapping[str, float], world: World) -> dict[str, Tensor]:
    """Values over all ranks, none waited for. A collective call.

    Args:
        mean: 0-dimensional tensors to average.
        most: numbers of which the largest counts.
        world: this rank.
    """
    numbers = torch.tensor(list(most.values()), pin_memory=world.device.type == "cuda")
    means = [value.detach().float() for value in mean.values()]
    mine = torch.cat([torch.stack(means), numbers.to(world.device, non_blocking=True)])
    if world.size > 1:
        every = mine.new_empty(world.size * len(mine))
        torch.distributed.all_gather_into_tensor(every, mine)
        every = every.view(world.size, -1)
        mine = torch.cat([every[:, : len(mean)].mean(0), every[:, len(mean) :].amax(0)])
    return dict(zip((*mean, *most), mine, strict=True))


def _master(parameter: Tensor) -> Tensor:
    """The 32-bit master copy where ZeRO keeps one, else the parameter itself."""
    from deepspeed.utils import safe_get_full_fp32_param

    full = safe_get_full_fp32_param(parameter)
    return parameter if full is None else full
