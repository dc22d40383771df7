"""Which device evaluation runs on."""

import pytest
import torch

from eval.features import best_device


def test_an_accelerator_is_named_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.cuda.set_device`, which the loader calls in its thread, refuses one without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert best_device() == torch.device("cuda", 3)


def test_without_an_accelerator_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")
