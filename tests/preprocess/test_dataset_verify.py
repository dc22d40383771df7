"""`marlin dataset verify`: every kind of damage is found and named; `--repair` drops exactly what is damaged."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from damage import (
    SCHEMA,
    UNITS,
    Change,
    change_counts,
    change_entry,
    change_info,
    change_plan,
    delete_shard,
    flip_bit,
    forge_exclusion,
    forget_source,
    hide_member,
    repeat_key,
    rewrite_shard,
    set_part,
    set_record,
    shift_part,
)
from drawn_dataset import drawn_section, everything, write_drawn, written

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from pipeline.storage.local import LocalStore
from preprocess.inspect.verify import verify


@pytest.fixture
def cfg(make_config: Callable[..., Config], tmp_path: Path) -> Config:
    return drawn_section(make_config, tmp_path / "raw", tmp_path / "out")


@pytest.fixture
def store(cfg: Config) -> Store:
    opened = dataset_store(cfg)
    write_drawn(opened, cfg, UNITS, labels=SCHEMA)
    return opened


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def cut_jpeg(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


def other_size(_: bytes) -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1])


def flac(rate: int = 16000, length: int = 2560) -> bytes:
    """The head of a FLAC stream."""
    fields = (rate << 44) | (15 << 36) | length
    return b"fLaC" + bytes(14) + fields.to_bytes(8, "big") + bytes(16)


def texts(store: Store, deep: bool = False) -> list[str]:
    return [problem.text for problem in verify(store, deep=deep).problems]


def test_a_whole_dataset_passes(store: Store, cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "verify", "-c", written(tmp_path, cfg), "--deep"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"dataset   {store.url}",
        f"identity  {load_dataset(store).identity[:12]}",
        "checked   2 shards, 6 samples, 24 frames: all as committed",
    ]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_part("002.jpg", lambda data: data[:-2]), "002.jpg is no whole JPEG"),
        (set_part("002.jpg", None), "002.jpg is missing"),
        (set_part("004.jpg", other_size(b"")), "004.jpg is no part of a sample"),
        (set_part("labels.png", None), "labels.png is missing"),
        (set_part("labels.png", b"\x89PNG"), "labels.png is no 8-bit grey PNG of 32x128"),
        (set_part("regions.npy", b"x"), "regions.npy is no NumPy array"),
        (set_part("regions.npy", as_npy(np.zeros((4, 4, 3), np.uint8))), "regions.npy is not uint8 (4, 4, 4)"),
        (set_part("regions.npy", as_npy(np.full((4, 4, 4), 128, np.uint8))), "regions.npy has bits beyond the 7"),
        (set_part("json", b"{"), "json: content: Invalid JSON"),
        (set_record(source=...), "json: source: Field required"),
        (set_record(extra=1), "json: extra: Extra inputs"),
        (set_record(frames="4"), "json: frames: Input should be a valid integer"),
        (set_record(split="other"), "json: split: Input should be 'train', 'val' or 'test'"),
        (set_record(track=7), "json: track is not that of the index"),
        (set_record(boxes=[]), "json: boxes has not 4 entries"),
        (set_record(times=[0.0, 0.1, 0.1, 0.2]), "json: times do not rise"),
        (set_record(unparsed=[4]), "json: unparsed names frames that are not there"),
        (set_record(size=64), "json: size is not 32"),
        (set_record(labels={"age": 3}), "json: label age is not in the schema"),
        (set_record(labels={"smile": [0, 2]}), "json: label smile: [0, 2] is not binary"),
        (set_part("txt", b"\xff"), "txt is not UTF-8"),
        (set_part("txt", b" "), "txt is empty"),
        (set_part("flac", b"RIFF"), "flac is no FLAC stream"),
        (set_part("flac", flac(rate=8000)), "flac is not mono at 16000 Hz"),
        (set_part("flac", flac(length=160000)), "flac lasts 10.00 s, its frames 0.16 s"),
    ],
)
def test_a_wrong_part_is_named(store: Store, tmp_path: Path, change: Change, message: str, deep: bool) -> None:
    rewrite_shard(store, tmp_path / "work", change)
    assert any(f"000000-s000-t00-000000: {message}" in text for text in texts(store, deep))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_part("001.jpg", cut_jpeg), "001.jpg can't be decoded"),
        (set_part("001.jpg", other_size), "001.jpg is not 32x32"),
        (set_part("regions.npy", as_npy(np.ones((4, 4, 4), np.uint8))), "labels.png and regions.npy disagree"),
    ],
)
def test_deep_looks_into_pictures(store: Store, tmp_path: Path, change: Change, message: str) -> None:
    rewrite_shard(store, tmp_path / "work", change)
    assert texts(store) == []
    [problem] = texts(store, deep=True)
    assert message in problem


@pytest.mark.parametrize(
    "case",
    [
        (delete_shard, "is gone"),
        (flip_bit, "is not what was committed (sha256 differs)"),
        (hide_member, "that the index does not name"),
        (shift_part, "has no 000000-s000-t00-000000.001.jpg"),
        (repeat_key, "key 000000-s000-t00-000000 is not unique"),
        (forget_source, "is of no source in it"),
        (change_entry, "samples.0.frames: Input should be greater than 0"),
        (lambda store: store.delete("units/000000.json"), "units/000000.json is gone"),
        (lambda store: store.write("units/000000.json", b"{}"), "units/000000.json is not the file that dataset.json"),
        (lambda store: store.write("dataset.json", b"{"), "dataset.json is damaged"),
        (change_info(labels=None), "dataset.json: labels: Input should be an object"),
        (change_info(labels={}), "a.mp4: label smile is not in the schema"),
        (change_info(splits={"train": 1, "val": 2, "test": 0}), "does not count the splits"),
        (change_info(removed=[{"source": "a.mp4", "identity": "", "reason": "x"}]), "a.mp4 was taken out"),
        (forge_exclusion, "the exclusion list names nobody, which is no sample"),
        (change_info(quarantine={"pose": 1}), "dataset.json does not count the quarantine as they are"),
        (change_counts(sources=9), "dataset.json counts 9 sources, there are 4"),
        (change_counts(tracks=9), "dataset.json counts 9 tracks, there are 3"),
    ],
)
def test_damage_to_the_index_is_named(
    store: Store,
    cfg: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[Callable[[Store], None], str],
) -> None:
    damage, message = case
    damage(store)
    assert main(["dataset", "verify", "-c", written(tmp_path, cfg)]) == 1
    out, err = capsys.readouterr()
    assert message in out
    assert "--repair" not in out
    assert err.count("\n") == 1
    assert "to mend, `marlin dataset verify --repair" in err


@pytest.mark.parametrize(
    "case",
    [
        (lambda store: store.delete("plan.json"), "plan.json is gone, and units that were made from it are there"),
        (lambda store: store.write("plan.json", b"{"), "plan.json is damaged (no JSON)"),
        (lambda store: store.write("plan.json", b"[]"), "plan.json is damaged (no JSON)"),
        (change_plan(b'"units":', b'"unity":'), "plan.json is damaged (KeyError: 'units')"),
        (change_plan(b'"b.mp4"', b'"B.mp4"'), "units/000000.json and plan.json say different things of B.mp4"),
        (change_plan(b'"identity":"b.mp4"', b'"identity":"a.mp4"'), "plan.json say different things of b.mp4"),
        (change_plan(b'"mood":0.5', b'"mood":1.5'), "plan.json say different things of a.mp4"),
        (change_plan(b'"label_maps":true', b'"label_maps":false'), "are of different settings: restore the one"),
        (
            change_info(removed=[{"source": "z.mp4", "identity": "", "reason": "x"}]),
            "plan.json lacks 1 removal that dataset.json records, as of z.mp4: restore plan.json",
        ),
    ],
)
def test_damage_to_the_plan_is_named_and_not_repaired(
    store: Store,
    cfg: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[Callable[[Store], None], str],
) -> None:
    damage, message = case
    damage(store)
    damaged, command = everything(store), ["dataset", "verify", "-c", written(tmp_path, cfg)]
    for arguments in (command, [*command, "--repair"]):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert message in out
        assert "that --repair can't mend: do what is said above" in err
    assert everything(store) == damaged


def test_a_plan_that_is_gone_is_not_made_again_over_finished_units(store: Store, cfg: Config, tmp_path: Path) -> None:
    store.delete("plan.json")
    before, config = everything(store), written(tmp_path, cfg)
    for arguments in (["verify", "--repair"], ["retry", "--reason", "no-face"], ["remove", "--source", "a.mp4"]):
        reason = ["--reason", "x"] if arguments[0] == "remove" else []
        assert main(["dataset", *arguments, "-c", config, *reason]) == 1
    assert everything(store) == before


def test_a_dataset_of_another_schema_version_is_left_alone(
    store: Store, cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_info(schema=3)(store)
    before = everything(store)
    assert main(["dataset", "verify", "-c", written(tmp_path, cfg), "--repair"]) == 1
    assert "dataset.json has schema 3, this version reads 2: use the version" in capsys.readouterr().err
    assert everything(store) == before


def test_storage_that_fails_is_no_damage(
    store: Store, cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Store, key: str) -> Path:
        raise MarlinError(f"{key}: cannot reach the S3 server")

    monkeypatch.setattr(LocalStore, "local_path", failing)
    before = everything(store)
    assert main(["dataset", "verify", "-c", written(tmp_path, cfg), "--repair"]) == 1
    assert "cannot reach the S3 server" in capsys.readouterr().err
    assert everything(store) == before


def test_all_problems_are_listed_up_to_a_number(
    store: Store, cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def empty(parts: dict[str, bytes]) -> None:
        parts.update({f"{frame:03d}.jpg": b"" for frame in range(4)})

    rewrite_shard(store, tmp_path / "work", empty)
    command = ["dataset", "verify", "-c", written(tmp_path, cfg)]
    assert main([*command, "--most", "2"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[2] == "… and 2 more"
    assert "4 problems" in err
    assert main(command) == 1
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main([*command, "--most", "0"]) == 1
    assert capsys.readouterr().out == ""


def test_one_damage_is_one_problem(store: Store) -> None:
    delete_shard(store)
    [text] = texts(store)
    assert text.startswith("shards/000000-")
    assert text.endswith(".tar is gone")


def test_strays_and_pending_units_are_no_problem(store: Store, cfg: Config) -> None:
    store.write("shards/000001-attempt-00.tar", b"left by a killed attempt")
    report = verify(store)
    assert report.problems == []
    assert "1 object (0.0 MB) that dataset.json does not name" in report.warnings[0]
    assert "shards/000001-attempt-00.tar" in report.warnings[0]


def test_shards_are_read_by_plain_tar(store: Store) -> None:
    dataset = load_dataset(store)
    for name in dataset.shards:
        with tarfile.open(fileobj=io.BytesIO(store.read(name))) as shard:
            assert set(shard.getnames()) == {
                f"{sample.key}.{part}" for sample in dataset.samples if sample.shard == name for part in sample.parts
            }
