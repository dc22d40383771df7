"""A full scratch disk ends the stage; it is no fault of the video that was being worked on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import preprocess.dataset.shards
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.storage import open_store
from preprocess.corpora import list_corpus, open_places
from preprocess.dataset.plan import Piece, Root, Unit
from preprocess.models import Networks
from preprocess.unit import UnitProcessor

MakeConfig = Callable[..., Config]


@pytest.mark.slow
def test_a_full_disk_quarantines_nothing(
    networks: Networks, make_config: MakeConfig, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preprocess.dataset.shards, "_append", full)
    cfg = make_config(face_clip.parent)
    store = open_store(str(tmp_path / "out"))
    pieces = tuple(Piece(source, None) for source in list_corpus(cfg.corpus).sources)
    unit = Unit("000000", Root("folder", str(face_clip.parent), False, {}), pieces)
    with pytest.raises(MarlinError, match="no space left: free some space and run again"):
        UnitProcessor(cfg.preprocess, store, networks, open_places).process(unit)
    assert list(store.list()) == []
