"""The method broken on purpose, in this process: what the learning check must notice."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import Tensor

from pipeline.config.schema import Config
from train.data.batch import Batch
from train.export import model_of
from train.model import MaskedAutoencoder
from train.step import Masked, Masker

_mask = Masker.__call__


def _targets_of_others(masker: Masker, batch: Batch) -> Masked:
    masked = _mask(masker, batch)
    return replace(masked, target_BMP=masked.target_BMP.roll(1, 0))


def _frozen(cfg: Config) -> MaskedAutoencoder:
    model = model_of(cfg)
    for part in (model.embed, model.encoder):
        part.requires_grad_(False)
    return model


def _nowhere(positions: int, width: int) -> Tensor:
    return torch.zeros(positions, width)


_PLACES: Mapping[str, tuple[str, Callable[..., object]]] = {
    "shuffled": ("train.step.Masker.__call__", _targets_of_others),
    "frozen": ("train.loop.model_of", _frozen),
    "nowhere": ("train.model.sincos_table", _nowhere),
}
BREAKS = tuple(_PLACES)
"""Targets of other clips, an encoder that stays as it began, no positions."""


@contextmanager
def broken(how: str) -> Iterator[None]:
    """Within this context the method is broken in one of `BREAKS`; not at all where that is empty."""
    if not how:
        yield
        return
    place, instead = _PLACES[how]
    with patch(place, instead):
        yield
