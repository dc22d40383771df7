"""`marlin dataset verify --repair` drops exactly what is damaged, and near-duplicates across units are left out."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import (
    SCHEMA,
    UNITS,
    change_counts,
    change_entry,
    delete_shard,
    flip_bit,
)
from drawn_dataset import Drawn, drawn_section, everything, write_drawn, written

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.dataset.settings import content_settings
from preprocess.inspect.verify import verify


@pytest.fixture
def cfg(make_config: Callable[..., Config], tmp_path: Path) -> Config:
    return drawn_section(make_config, tmp_path / "raw", tmp_path / "out")


@pytest.fixture
def store(cfg: Config) -> Store:
    opened = dataset_store(cfg)
    write_drawn(opened, cfg, UNITS, labels=SCHEMA)
    return opened


def test_near_duplicates_across_units_are_left_out(make_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_section(make_config, tmp_path / "raw", tmp_path / "copies")
    store = dataset_store(cfg)
    write_drawn(store, cfg, [[Drawn("a.mp4", face=1, samples=9)], [Drawn("b.mp4", face=1, samples=9)], UNITS[1]])
    dataset = load_dataset(store)
    assert {sample.source for sample in dataset.samples} == {"a.mp4", "c.mp4"}
    assert (dataset.excluded, dataset.info["counts"]["samples"], dataset.info["splits"]["train"]) == (9, 11, 9)
    assert dataset.info["counts"]["tracks"] == 2
    name = dataset.info["exclusions"]["name"]
    content = json.loads(store.read(name))
    assert hashlib.sha256(store.read(name)).hexdigest().startswith(Path(name).stem)
    first = {"key": "000001-s000-t00-000000", "reason": "near-duplicate", "kept": "000000-s000-t00-000000"}
    assert content["excluded"][0] == first
    report = verify(store, deep=True)
    assert report.problems == []
    assert "9 of the samples as near-duplicates" in report.text(most=20)

    from preprocess.dataset.removal import remove_sources

    remove_sources(store, ["a.mp4"], [], "withdrew")
    dataset = load_dataset(store)
    assert {sample.source for sample in dataset.samples} == {"b.mp4", "c.mp4"}
    assert (dataset.excluded, dataset.info["exclusions"]) == (0, None)
    assert not list(store.list("exclusions/"))


def test_near_duplicates_stay_where_they_are_wanted(make_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_section(make_config, tmp_path / "raw", tmp_path / "copies")
    store, settings = dataset_store(cfg), {"config": {"near_duplicates": False}, "models": []}
    write_drawn(
        store, cfg, [[Drawn("a.mp4", face=1, samples=9)], [Drawn("b.mp4", face=1, samples=9)]], settings=settings
    )
    assert {sample.source for sample in load_dataset(store).samples} == {"a.mp4", "b.mp4"}


@pytest.fixture
def raw(tmp_path: Path, face_clip: Path, cfg: Config, models: dict[str, Path]) -> Path:
    """The raw videos of a dataset that `marlin preprocess` could continue; one of them is gone."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(face_clip.read_bytes())
    write_drawn(dataset_store(cfg), cfg, UNITS, settings=content_settings(cfg.preprocess), labels=SCHEMA)
    return folder


@pytest.mark.parametrize("damage", [delete_shard, flip_bit, change_entry])
def test_repair_drops_the_damaged_unit_alone(
    cfg: Config, raw: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Store], None]
) -> None:
    store, command = dataset_store(cfg), ["dataset", "verify", "-c", written(raw.parent, cfg), "--repair"]
    damage(store)
    damaged = everything(store)
    assert main(command) == 1
    assert "its raw video b.mp4 can't be read" in capsys.readouterr().err
    assert everything(store) == damaged

    (raw / "b.mp4").write_bytes((raw / "a.mp4").read_bytes())
    assert main(command) == 0

    assert "dropped 1 unit: `marlin preprocess" in capsys.readouterr().out
    assert [item.key for item in store.list("units/")] == ["units/000001.json"]
    assert {sample.source for sample in load_dataset(store).samples} == {"c.mp4"}
    report = verify(store)
    assert report.problems == []
    assert "1 planned unit not in the dataset yet" in report.warnings[-1]


def test_quarantined_sources_are_tried_again_by_reason(
    cfg: Config, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, command = dataset_store(cfg), ["dataset", "retry", "-c", written(raw.parent, cfg), "--reason"]
    (raw / "c.mp4").write_bytes((raw / "a.mp4").read_bytes())
    whole = everything(store)
    assert main([*command, "gone"]) == 2
    assert "there are unreadable, no-video" in capsys.readouterr().err
    assert main([*command, "damaged"]) == 0
    assert capsys.readouterr().out == "nothing to do: no source is quarantined as damaged\n"
    assert everything(store) == whole

    assert main([*command, "no-face"]) == 0

    out = capsys.readouterr().out
    assert "dropped 1 unit with 1 quarantined source: `marlin preprocess" in out
    assert "makes it again" in out
    assert [item.key for item in store.list("units/")] == ["units/000000.json"]
    assert {sample.source for sample in load_dataset(store).samples} == {"a.mp4", "b.mp4"}


def test_repair_of_the_index(cfg: Config, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, command = dataset_store(cfg), ["dataset", "verify", "-c", written(raw.parent, cfg), "--repair"]
    store.write("units/000000.json", b"{}")
    assert main(command) == 0
    assert [item.key for item in store.list("units/")] == ["units/000001.json"]
    assert verify(store).problems == []
    capsys.readouterr()
    change_counts(sources=9)(store)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "dataset.json is put anew"
    assert verify(store).problems == []
    for data in (b"{", store.read("dataset.json").replace(b'"labels"', b'"lapels"')):
        store.write("dataset.json", data)
        assert main(command) == 0
        assert "dataset.json is removed: `marlin preprocess" in capsys.readouterr().out
        assert not store.exists("dataset.json")
