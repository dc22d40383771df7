"""What DeepSpeed's files may hold: tensors, plain values, and the few classes that are allowed."""

from enum import Enum
from pathlib import Path

import pytest
import torch

from train.universal import _ALLOWED, tensors_only

ENUMS = [entry for entry in _ALLOWED if isinstance(entry, type) and issubclass(entry, Enum)]


@pytest.mark.parametrize("member", [member for enum in ENUMS for member in enum], ids=str)
def test_an_enum_is_saved_by_value(member: Enum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.2, Debian 12's, would save a call of `getattr`, and its runs could not be continued."""
    monkeypatch.setattr(type(member), "__reduce_ex__", lambda member, _: (getattr, (type(member), member.name)))
    path = tmp_path / "state.pt"
    torch.save({"setting": member}, path)
    with tensors_only():
        assert torch.load(path) == {"setting": member}
