"""`marlin dataset remove`: what is gone, what stays byte for byte, and what a kill at any moment leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import drawn_dataset
import pytest
from drawn_dataset import Drawn, drawn_section, everything, write_drawn, write_unit, written

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.dataset.plan import Piece, Plan, Root, Unit, read_plan
from preprocess.dataset.removal import remove_sources, settle
from preprocess.dataset.settings import content_settings
from preprocess.stage import run_preprocess

MakeDrawn = Callable[..., tuple[Store, str]]

UNITS = [
    [Drawn("anna 1.mp4", "anna", face=1), Drawn("bert.mp4", "bert", face=2), Drawn("bad.mp4", bad="no-face")],
    [Drawn("cleo.mp4", "cleo", face=3, split="val")],
    [Drawn("anna 2.mp4", "anna", face=4), Drawn("bert copy.mp4", "x", face=2)],
]
PENDING = [[Drawn("dora.mp4", "dora", face=5), Drawn("emil.mp4", "emil", face=6)]]


class Killed(Exception):
    """Stands for a SIGKILL."""


class FragileStore:
    """A store that dies before its n-th change."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store, self._left = store, changes

    def __getattr__(self, name: str) -> Any:
        if name in {"write", "write_file", "create", "replace", "delete"}:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return getattr(self._store, name)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for unit in [*UNITS, *PENDING]:
        for one in unit:
            (folder / one.name).write_bytes(b"not decoded here")
    return folder


@pytest.fixture
def drawn_config(make_config: Callable[..., Config], corpus: Path) -> Callable[..., Config]:
    return partial(drawn_section, make_config, corpus)


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else str(request.getfixturevalue("s3_url"))


def parts(store: Store) -> dict[str, dict[str, bytes]]:
    return {
        sample.key: {name: store.read_range(sample.shard, *place) for name, place in sample.parts.items()}
        for sample in load_dataset(store).samples
    }


def test_a_source_is_gone_and_the_rest_is_as_before(
    root: str, drawn_config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = drawn_config(root)
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    before, old = parts(store), everything(store)
    identity = load_dataset(store).identity
    gone = {key: found for key, found in before.items() if key.startswith("000000-s000")}
    assert len(gone) == 2

    config = written(tmp_path, cfg)
    assert main(["dataset", "remove", "-c", config, "--source", "anna 1.mp4", "--reason", "withdrew"]) == 0

    assert "2 samples, 8 frames, in 1 unit" in capsys.readouterr().out
    dataset = load_dataset(store)
    assert dataset.identity != identity
    assert parts(store) == {key: found for key, found in before.items() if key not in gone}
    assert dataset.info["removed"] == [{"source": "anna 1.mp4", "identity": "", "reason": "withdrew"}]
    assert dataset.info["counts"]["samples"] == 8
    assert {sample.unit for sample in dataset.samples} == {"000000", "000001", "000002"}
    new = everything(store)
    assert "units/000000.r1.json" in new
    assert "units/000000.json" not in new
    assert {key: old[key] for key in old if "00000" in key and "000000" not in key}.items() <= new.items()
    pictures = [data for found in gone.values() for name, data in found.items() if name.endswith((".jpg", "json"))]
    assert not [key for key, data in new.items() if any(picture in data for picture in pictures)]
    assert main(["dataset", "verify", "-c", config, "--deep"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_kill_at_any_change_is_made_good(drawn_config: Callable[..., Config], tmp_path: Path) -> None:
    def ask(store: Any) -> None:
        remove_sources(store, ["bert.mp4"], ["anna"], "withdrew")

    def make(name: str) -> Store:
        cfg = drawn_config(tmp_path / name)
        store = dataset_store(cfg)
        write_drawn(store, cfg, UNITS, pending=PENDING)
        return store

    whole = make("whole")
    ask(whole)
    expected = everything(whole)
    for changes in range(100):
        by_command, by_preprocess = make(f"a{changes}"), make(f"b{changes}")
        killed = False
        for store in (by_command, by_preprocess):
            try:
                ask(FragileStore(store, changes))
            except Killed:
                killed = True
                dataset = load_dataset(store)
                assert all(store.size(entry.name) == entry.size for entry in dataset.shards.values())
        ask(by_command)
        settle(by_preprocess)
        assert everything(by_command) == expected
        if changes:
            assert everything(by_preprocess) == expected
        if not killed:
            break
    # plan.json; the manifest of one unit, a shard and the manifest of another; dataset.json; two old of each.
    assert changes == 1 + 1 + 2 + 1 + 4


def test_a_person_is_gone_from_all_units_and_never_comes_back(
    drawn_config: Callable[..., Config], tmp_path: Path, corpus: Path, models: dict[str, Path]
) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS, settings=content_settings(cfg.preprocess))
    effect = remove_sources(store, [], ["anna"], "withdrew")
    assert (effect.sources, effect.units) == (("anna 1.mp4", "anna 2.mp4"), 2)
    after = everything(store)
    assert remove_sources(store, [], ["anna"], "withdrew").earlier == ("anna 1.mp4", "anna 2.mp4")
    assert everything(store) == after

    for one in PENDING[0]:
        (corpus / one.name).unlink()
    (corpus / "anna.mp4").write_bytes(b"of the same person, by its name")
    summary = run_preprocess(cfg, progress=False)

    assert (summary.new_units, summary.new_sources, summary.refused_sources) == (0, 0, 3)
    assert everything(store) == after


def test_pending_and_quarantined_sources_and_leftovers_can_go(
    drawn_config: Callable[..., Config], tmp_path: Path
) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS, pending=PENDING)
    # What an attempt that was killed before its manifest left behind.
    unit = Unit("000003", Root("folder", "", False, {}), tuple(Piece(one.source, None) for one in PENDING[0]))
    write_unit(store, cfg, unit, PENDING[0])
    store.delete("units/000003.json")
    assert [item.key for item in store.list("shards/000003-")]

    effect = remove_sources(store, ["dora.mp4", "bad.mp4"], [], "withdrew")

    assert (effect.samples, effect.units) == (0, 1)
    assert not list(store.list("shards/000003-"))
    plan = read_plan(store).plan
    assert [piece.source.name for piece in plan.units[3].pieces] == ["emil.mp4"]
    assert load_dataset(store).info["quarantine"] == {}
    assert len(load_dataset(store).samples) == 10


def test_a_unit_and_a_dataset_may_become_empty(drawn_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    remove_sources(store, ["cleo.mp4"], [], "withdrew")
    manifest = json.loads(store.read("units/000001.r1.json"))
    assert (manifest["shards"], manifest["samples"], manifest["sources"]) == ([], [], [])
    remove_sources(store, [one.name for unit in UNITS for one in unit if one.name != "cleo.mp4"], [], "all")
    assert load_dataset(store).samples == ()
    assert not list(store.list("shards/"))
    assert json.loads(store.read("units/000000.r1.json"))["schema"] == 2


def test_an_unfinished_dataset_loses_sources_too(drawn_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    store.delete("dataset.json")
    remove_sources(store, ["cleo.mp4"], [], "withdrew")
    assert not store.exists("dataset.json")
    assert not list(store.list("shards/000001-"))


def test_a_worker_that_was_late_does_not_bring_a_source_back(
    drawn_config: Callable[..., Config], tmp_path: Path
) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    remove_sources(store, ["cleo.mp4"], [], "withdrew")
    after = everything(store)
    write_unit(store, cfg, Unit("000001", Root("folder", "", False, {}), (Piece(UNITS[1][0].source, None),)), UNITS[1])
    assert everything(store) != after
    settle(store)
    assert everything(store) == after


def test_near_duplicates_of_what_goes_are_named(
    drawn_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = drawn_dataset._source_entry
    own = {one.name: f"{number:064x}" for number, one in enumerate(one for unit in UNITS for one in unit)}
    monkeypatch.setattr(drawn_dataset, "_source_entry", lambda one: {**real(one), "sha256": own[one.name]})
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    units = [[replace(one, samples=8) for one in unit] for unit in UNITS]
    write_drawn(store, cfg, units)
    assert load_dataset(store).excluded
    assert remove_sources(store, ["bert.mp4"], [], "withdrew", dry_run=True).copies == ("bert copy.mp4",)
    assert remove_sources(store, ["bert copy.mp4"], [], "withdrew", dry_run=True).copies == ("bert.mp4",)


@pytest.mark.parametrize(
    "request_",
    [
        (["--source", "ana 1.mp4", "--reason", "x"], 2, "holds no source 'ana 1.mp4' (nearest: 'anna 1.mp4'"),
        (["--identity", "cle", "--reason", "x"], 2, "holds no identity 'cle' (nearest: 'cleo')"),
        (["--source", "zzzzzz", "--reason", "x"], 2, "holds no source 'zzzzzz' (one that it holds: 'anna 1.mp4')"),
        (["--reason", "x"], 2, "name what to take out"),
        (["--source", "cleo.mp4", "--reason", " "], 2, "--reason is empty"),
        (["--source", "cleo.mp4", "--reason", "x", "corpus.name=other"], 1, "holds no dataset"),
    ],
)
def test_a_wrong_request_changes_nothing(
    drawn_config: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request_: tuple[list[str], int, str],
) -> None:
    arguments, status, message = request_
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    before = everything(store)
    assert main(["dataset", "remove", "-c", written(tmp_path, cfg), *arguments]) == status
    assert message in capsys.readouterr().err
    assert everything(store) == before


def test_a_dry_run_only_tells(
    drawn_config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    before = everything(store)
    command = ["dataset", "remove", "-c", written(tmp_path, cfg), "--source", "bert.mp4", "--reason", "x", "--dry-run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "bert.mp4" in out
    assert "same video  bert copy.mp4" in out
    assert "this source stays: take it out too if the same person is in it" in out
    assert everything(store) == before


@pytest.mark.parametrize(
    ("sources", "lines"),
    [
        (["bad.mp4"], ["taken out  bad.mp4", "with       no samples, in 1 unit"]),
        (["dora.mp4"], ["taken out  dora.mp4", "with       no samples, not processed yet"]),
        (["cleo.mp4", "anna 1.mp4"], ["with       2 samples, 8 frames, in 1 unit", "earlier    cleo.mp4"]),
        (["cleo.mp4"], ["taken out  nothing new", "earlier    cleo.mp4"]),
    ],
)
def test_what_went_is_told(
    drawn_config: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sources: list[str],
    lines: list[str],
) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS, pending=PENDING)
    remove_sources(store, ["cleo.mp4"], [], "withdrew")
    arguments = [word for name in sources for word in ("--source", name)]
    assert main(["dataset", "remove", "-c", written(tmp_path, cfg), *arguments, "--reason", "x"]) == 0
    assert set(lines) <= set(capsys.readouterr().out.splitlines())


def test_a_damaged_shard_is_not_copied(drawn_config: Callable[..., Config], tmp_path: Path) -> None:
    from pipeline.errors import MarlinError

    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    [shard] = [item.key for item in store.list("shards/000000-")]
    data = bytearray(store.read(shard))
    data[len(data) // 2] ^= 1
    store.write(shard, bytes(data))
    with pytest.raises(MarlinError, match=r"shards/000000-.* is not what was committed"):
        remove_sources(store, ["anna 1.mp4"], [], "withdrew")
    assert load_dataset(store).samples


def test_the_plan_holds_nothing_but_the_record(drawn_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_config(tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS)
    remove_sources(store, ["cleo.mp4"], [], "withdrew")
    plan: Plan = read_plan(store).plan
    assert [(gone.source, gone.reason, gone.units) for gone in plan.removed] == [("cleo.mp4", "withdrew", ("000001",))]
    assert "cleo.mp4" in plan.sources()
