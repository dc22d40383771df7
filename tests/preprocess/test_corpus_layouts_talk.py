"""The layouts of FaceForensics++ and LRS2: names, pairs, splits, sound, and what is said of mismatches."""

from pathlib import Path

import pytest
from corpora import put, put_ffpp, put_lrs2
from listings import by_name, has, listed, splits

from pipeline.errors import UsageError
from pipeline.storage import open_store

# FaceForensics++

PAIRS = {"train": [("000", "003"), ("010", "720")], "val": [("004", "982")], "test": [("953", "974")]}


def test_ffpp_keeps_a_pair_together(tmp_path: Path) -> None:
    put_ffpp(tmp_path, PAIRS)
    listing = listed("ffpp", tmp_path)
    sources = by_name(listing)
    assert len(sources) == 4 * (2 + 4 * 2)
    assert {source.identity for source in sources.values()} == {"000", "004", "010", "953"}
    for source in sources.values():
        pair = {"000": "train", "003": "train", "010": "train", "720": "train", "004": "val", "982": "val"}
        assert source.split == pair.get(Path(source.path).stem[:3], "test")
    assert sources["original/c23/003"].identity == sources["FaceSwap/c23/003_000"].identity == "000"
    assert sources["original/c23/003"].labels == {"fake": "real", "method": "original"}
    assert sources["FaceSwap/c23/003_000"].labels == {"fake": "fake", "method": "FaceSwap"}
    assert listing.labels["fake"] == {"type": "class", "names": ["real", "fake"]}
    assert listing.findings == (
        "ffpp: 20 train videos, the official split has 3,600",
        "ffpp: 10 val videos, the official split has 700",
        "ffpp: 10 test videos, the official split has 700",
    )


def test_ffpp_of_the_official_size_has_nothing_to_say(tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(1000)]
    pairs = list(zip(names[::2], names[1::2], strict=True))
    put_ffpp(tmp_path, {"train": pairs[:360], "val": pairs[360:430], "test": pairs[430:]})
    listing = listed("ffpp", tmp_path)
    assert [sum(source.split == split for source in listing.sources) for split in ("train", "val", "test")] == [
        3600,
        700,
        700,
    ]
    assert listing.findings == ()


def test_ffpp_other_compressions_and_parts(tmp_path: Path) -> None:
    put_ffpp(tmp_path, {"train": [("000", "003")]})
    (tmp_path / "original_sequences/youtube/c23").rename(tmp_path / "original_sequences/youtube/raw")
    listing = listed("ffpp", tmp_path, compression="c0", parts=["original", "FaceShifter"])
    assert splits(listing) == {"original/c0/000": "train", "original/c0/003": "train"}
    assert has(listing, "ffpp: there are no FaceShifter videos in c0")
    assert has(listing, "ffpp: 2 train videos, the official split has 1,440")
    with pytest.raises(UsageError, match=r"corpus\.parts: FaceForensics\+\+ has no Deepfake: choose"):
        listed("ffpp", tmp_path, parts=["Deepfake"])


def test_ffpp_without_lists_still_keeps_pairs_together(tmp_path: Path) -> None:
    put_ffpp(tmp_path, PAIRS)
    for split in PAIRS:
        (tmp_path / f"splits/{split}.json").unlink()
    listing = listed("ffpp", tmp_path)
    assert {source.split for source in listing.sources} == {None}
    assert {source.identity for source in listing.sources} == {"000", "004", "010", "953"}


def test_ffpp_lists_without_pairs_are_refused(tmp_path: Path) -> None:
    put_ffpp(tmp_path, PAIRS)
    put(tmp_path / "splits/train.json", '["000"]')
    with pytest.raises(UsageError, match=r"'000' is no pair"):
        listed("ffpp", tmp_path)


# LRS2

LRS2 = {
    "train": ["5535415699068794046/00001", "5535415699068794046/00002"],
    "val": ["6001854301505575951/00005"],
    "test": ["6330311066473698535/00011"],
    "pretrain": ["5535415699068794046/00001"],
}


@pytest.mark.parametrize("inside", [False, True])
def test_lrs2_has_transcripts_and_sound(inside: bool, tmp_path: Path) -> None:
    put_lrs2(tmp_path, LRS2)
    (tmp_path / "mvlrs_v1/main/6001854301505575951/00005.txt").unlink()
    if inside:
        for split in LRS2:
            (tmp_path / f"{split}.txt").rename(tmp_path / f"mvlrs_v1/{split}.txt")
    listing = listed("lrs2", tmp_path / "mvlrs_v1" if inside else tmp_path)
    assert listing.audio
    assert splits(listing) == {
        "main/5535415699068794046/00001": "train",
        "main/5535415699068794046/00002": "train",
        "main/6001854301505575951/00005": "val",
        "main/6330311066473698535/00011": "test",
    }
    source = by_name(listing)["main/5535415699068794046/00002"]
    assert (source.identity, source.text) == ("5535415699068794046", "SENTENCE OF 5535415699068794046/00002")
    assert has(listing, "lrs2: 1 of 4 videos has no transcript, as main/6001854301505575951/00005")
    assert has(listing, "lrs2: 2 train videos, the official split has 45,838")


def test_lrs2_names_what_lies_astray_or_twice(tmp_path: Path) -> None:
    put_lrs2(tmp_path, {"train": ["1/00001", "1/00002"]})
    put(tmp_path / "mvlrs_v1/main/1/00001.mkv")
    put(tmp_path / "mvlrs_v1/main/00009.mp4")
    put(tmp_path / "mvlrs_v1/main/1/00002.txt", "Conf:  4\n")
    listing = listed("lrs2", tmp_path)
    assert {source.name: source.path for source in listing.sources} == {
        "main/1/00001": "mvlrs_v1/main/1/00001.mkv",
        "main/1/00002": "mvlrs_v1/main/1/00002.mp4",
    }
    assert [source.text for source in listing.sources] == ["SENTENCE OF 1/00001", ""]
    for line in (
        "lrs2: 1 video does not lie in a folder <id> and is left out, as mvlrs_v1/main/00009.mp4",
        "lrs2: 1 video has the name of another one and is left out, as mvlrs_v1/main/1/00001.mp4 (beside "
        "mvlrs_v1/main/1/00001.mkv)",
        "lrs2: 1 of 2 videos has no transcript, as main/1/00002",
    ):
        assert line in listing.findings


def test_lrs2_takes_pretrain_when_asked(tmp_path: Path) -> None:
    put_lrs2(tmp_path, LRS2)
    listing = listed("lrs2", tmp_path, parts=["pretrain"])
    assert splits(listing) == {"pretrain/5535415699068794046/00001": "train"}
    assert len(listed("lrs2", tmp_path, parts=["main", "pretrain"]).sources) == 5
    with pytest.raises(UsageError, match=r"corpus\.parts: LRS2 has no all"):
        listed("lrs2", tmp_path, parts=["all"])


def test_lrs2_is_listed_from_a_bucket(tmp_path: Path, s3_url: str) -> None:
    put_lrs2(tmp_path, LRS2)
    store = open_store(s3_url)
    for path in tmp_path.rglob("*.*"):
        store.write_file(path.relative_to(tmp_path).as_posix(), path)
    assert listed("lrs2", s3_url) == listed("lrs2", tmp_path)
