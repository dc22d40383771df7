"""A checkpoint for another number of ranks: DeepSpeed's universal checkpoint, made from the files of the old ones."""

import copyreg
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from pipeline.errors import MarlinError

# What DeepSpeed asks of a state that is to be converted.
CLIENT_STATE = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}

# The only classes in DeepSpeed's files beside tensors and plain values; all hold numbers.
_ALLOWED = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _by_value(stage: ZeroStageEnum) -> tuple[type[ZeroStageEnum], tuple[int]]:
    return ZeroStageEnum, (stage.value,)


# Some releases of Python 3.11, Debian 12's among them, save an enum as a call of `getattr`, which is not allowed above.
copyreg.pickle(ZeroStageEnum, _by_value)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Within it `torch.load` reads tensors and plain values only, whatever its caller asks for."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def make_universal(folder: Path, name: str) -> None:
    """Replace an engine's state in a checkpoint's folder by its universal form, in a process of its own.

    Args:
        folder: local copy of a checkpoint, with the files of all ranks.
        name: the engine.

    Raises:
        MarlinError: the converter failed.
    """
    source, target = folder / name, folder / f"{name}-universal"
    if not any(source.glob("*_optim_states.pt")):
        return  # stage 0: the one file is the same on every rank
    command = [sys.executable, "-m", "train.universal", str(source), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MarlinError(f"can't convert the checkpoint's {name} for another number of ranks: {last}")
    source.rename(folder / f"{name}-sharded")
    target.rename(source)


def main() -> None:
    """`python -m train.universal FROM TO`: DeepSpeed's converter on one engine's state."""
    from deepspeed.checkpoint import ds_to_universal

    source, target = sys.argv[1:]
    options = {"keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    workers = {"num_extract_workers": 1, "num_merge_workers": 1}  # no pool: a worker would not know what is allowed
    with tensors_only():
        ds_to_universal.main(Namespace(input_folder=source, output_folder=target, **options, **workers))


if __name__ == "__main__":
    main()
