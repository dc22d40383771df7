"""DeepSpeed engines of generator and critic, in one process group."""

import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig


@dataclass(frozen=True)
class World:
    """This process among the ranks of the run, which are spread evenly over `nodes`."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    nodes: int = 1

    @property
    def leads(self) -> bool:
        """Rank 0 speaks for the run."""
        return self.rank == 0


def choose_accelerator() -> None:
    """Tell DeepSpeed where to run; it looks only once, when it is imported."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"


def join_world() -> World:
    """Join the process group that the launcher's environment describes; alone without one."""
    rank = int(os.environ.setdefault("RANK", "0"))
    size = int(os.environ.setdefault("WORLD_SIZE", "1"))
    local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))
    # Not every launcher says how many ranks a node has; then all may be on one.
    nodes = math.ceil(size / int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())
    choose_accelerator()
    import deepspeed

    gpu = torch.cuda.is_available()
    if not gpu:
        # The shared-memory operator would be compiled at the first start; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", verbose=False)
    device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    return World(rank, size, local_rank, device, nodes)


def make_engine(module: nn.Module, cfg: TrainConfig, micro_batches: int, stage: int) -> Any:
    """A DeepSpeed engine with AdamW around ``module``; the trainer sets the learning rate before each update.

    Args:
        module: network with fresh weights, the same on every rank.
        cfg: batch sizes, precision and optimiser.
        micro_batches: micro batches of one update on each rank.
        stage: ZeRO stage.
    """
    import deepspeed

    settings: dict[str, Any] = {
        "train_batch_size": cfg.global_batch,
        "train_micro_batch_size_per_gpu": cfg.micro_batch,
        "gradient_accumulation_steps": micro_batches,
        "steps_per_print": 0x7FFFFFFF,
        "gradient_clipping": 0.0,  # DeepSpeed clips at 1.0 unless told; the paper does not clip
        "bf16": {"enabled": cfg.precision == "bf16"},
        "zero_optimization": {"stage": stage},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": cfg.base_lr,
                "betas": list(cfg.betas),
                "weight_decay": cfg.weight_decay,
                "torch_adam": True,
                "fused": True,  # one pass over the weights instead of a dozen
            },
        },
    }
    engine, *_ = deepspeed.initialize(model=module, model_parameters=module.parameters(), config=settings)
    if stage == 0 and torch.distributed.get_world_size() == 1:
        # There is nobody to average gradients with; DeepSpeed would copy them all twice.
        engine.enable_backward_allreduce = False
    return engine


def set_learning_rate(engine: Any, rate: float) -> None:
    """Use ``rate`` for the next update."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


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


def mean_over_ranks(values: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Average 0-dimensional tensors over all ranks."""
    if world.size == 1:
        return dict(values)
    stacked = torch.stack([value.detach().float() for value in values.values()])
    torch.distributed.all_reduce(stacked)
    return dict(zip(values, stacked / world.size, strict=True))


def _master(parameter: Tensor) -> Tensor:
    """The 32-bit master copy where ZeRO keeps one, else the parameter itself."""
    from deepspeed.utils import safe_get_full_fp32_param

    full = safe_get_full_fp32_param(parameter)
    return parameter if full is None else full


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
