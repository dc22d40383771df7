"""What only a GPU can show of the loader. Prints "not run" where there is none."""

from pathlib import Path

import pytest
import torch
from drawn import MakeConfig
from synthetic import DrawnTrack, write_dataset

from pipeline.dataset import load_dataset
from pipeline.storage import open_store
from train.data.loader import open_loader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: this machine has no GPU"),
]
# As docs/loading.md states, in grey levels.
MEAN, NEARLY_ALL = 1.0, 8.0


@pytest.fixture
def clips(tmp_path: Path, make_config: MakeConfig) -> dict[str, torch.Tensor]:
    """The same mirrored and unmirrored clips as the CPU alone, the CPU for a GPU, and the GPU decode them."""
    store = open_store(str(tmp_path))
    write_dataset(store, [DrawnTrack("a.mp4", train=(64, 64), val=())], size=224, patch=16, label_maps=False)
    dataset, found = load_dataset(store), {}
    for name, device, decode in (("cpu", "cpu", "cpu"), ("copied", "cuda", "cpu"), ("mixed", "cuda", "mixed")):
        cfg = make_config(data={"flip": True, "decode_device": decode})
        place = {"split": "train", "rank": 0, "world": 1, "device": torch.device(device)}
        with open_loader(cfg, dataset, store, **place) as loader:
            batches = [next(loader) for _ in range(4)]
        assert {flip for batch in batches for flip in batch.flips} == {False, True}
        assert {batch.clips_BCTHW.device.type for batch in batches} == {device}
        found[name] = torch.cat([batch.clips_BCTHW for batch in batches]).cpu() * 255
    return found


def test_what_the_cpu_decodes_arrives_on_the_gpu_as_it_is(clips: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(clips["copied"], clips["cpu"], atol=1e-4, rtol=0)


def test_the_gpu_decodes_nearly_the_same_pixels(clips: dict[str, torch.Tensor]) -> None:
    difference = (clips["mixed"] - clips["cpu"]).abs()
    assert difference.mean() <= MEAN
    assert (difference <= NEARLY_ALL).float().mean() >= 0.999
