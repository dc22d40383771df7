"""The known corpora in their true layouts: names, identities, splits, labels, and what is said of mismatches."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from corpora import ACTION, APPEARANCE, celebv_info, put, put_csv, put_ffpp, put_lrs2, put_ytf

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from pipeline.storage import open_store
from preprocess.corpora import LAYOUTS, Listing, Source, list_corpus, open_media
from preprocess.quarantine import BadSource


def listed(kind: str, path: Path | str, **keys: Any) -> Listing:
    return list_corpus(CorpusConfig(kind=kind, path=str(path), **keys))  # type: ignore[arg-type]


def by_name(listing: Listing) -> dict[str, Source]:
    return {source.name: source for source in listing.sources}


def splits(listing: Listing) -> dict[str, str | None]:
    return {source.name: source.split for source in listing.sources}


def has(listing: Listing, text: str) -> bool:
    return any(text in line for line in listing.findings)


def test_every_kind_has_a_layout() -> None:
    assert set(LAYOUTS) == set(get_args(CorpusConfig.model_fields["kind"].annotation))


# YouTube Faces

YTF = ["Ann_Lee/0", "Ann_Lee/5", "Bo_Ek/1", "Cy_Ott/2"]


@pytest.mark.parametrize("inside", [False, True])
def test_ytf_videos_are_folders_of_a_person(inside: bool, tmp_path: Path) -> None:
    put_ytf(tmp_path, YTF, [b"1", b"2", b"3"])
    put_ytf(tmp_path / "aligned_images_DB", ["Not/1"], [b"1", b"2"])
    listing = listed("ytf", tmp_path / "frame_images_DB" if inside else tmp_path)
    assert {source.name: source.identity for source in listing.sources} == {
        "Ann_Lee/0": "Ann_Lee",
        "Ann_Lee/5": "Ann_Lee",
        "Bo_Ek/1": "Bo_Ek",
        "Cy_Ott/2": "Cy_Ott",
    }
    assert {(source.split, source.frame_rate) for source in listing.sources} == {(None, 24.0)}
    assert listing.findings == ("ytf: 4 videos, the official corpus has 3,425",)


def test_ytf_lists_name_people_or_videos(tmp_path: Path) -> None:
    put_ytf(tmp_path, YTF, [b"1", b"2"])
    put(tmp_path / "lists.json", json.dumps({"train": ["Ann_Lee", "Gone/1"], "val": ["Bo_Ek/1", "Ann_Lee/5"]}))
    listing = listed("ytf", tmp_path, splits="lists.json")
    assert splits(listing) == {"Ann_Lee/0": "train", "Ann_Lee/5": "val", "Bo_Ek/1": "val"}
    assert has(listing, "ytf: 1 of 2 listed train entries is not in the corpus, as Gone/1")
    assert has(listing, "ytf: 1 identity is in more than one split, as the lists say, as Ann_Lee")
    assert has(listing, "ytf: 1 train video, the official split has about 2,593")
    assert has(listing, "ytf: 2 val videos, the official split has about 633")


def test_ytf_frames_that_lie_astray_are_named(tmp_path: Path) -> None:
    put_ytf(tmp_path, ["Ann_Lee/0"], [b"1", b"2"])
    put(tmp_path / "frame_images_DB/Bo_Ek/1.jpg")
    put(tmp_path / "frame_images_DB/Cy_Ott/2/deep/2.1.jpg")
    listing = listed("ytf", tmp_path)
    assert [source.name for source in listing.sources] == ["Ann_Lee/0"]
    assert listing.findings[0] == (
        "ytf: 2 folders of images are not at <identity>/<n>: left out, as frame_images_DB/Bo_Ek/, "
        "frame_images_DB/Cy_Ott/2/deep/"
    )


def test_ytf_frames_come_from_a_bucket_in_order(tmp_path: Path, s3_url: str) -> None:
    store = open_store(s3_url)
    for number in (8, 9, 10, 11):
        store.write(f"frame_images_DB/Åse O'Hara/3/3.{number}.jpg", str(number).encode())
    store.write("frame_images_DB/Åse O'Hara/3/deeper/3.1.jpg", b"another")
    (source,) = listed("ytf", s3_url).sources
    media = open_media("ytf", s3_url)
    assert media.probe(source).seconds == 4 / 24
    with media.open(source) as folder:
        assert {path.name: path.read_text() for path in folder.iterdir()} == {
            f"3.{n}.jpg": str(n) for n in (8, 9, 10, 11)
        }
    assert not folder.exists()
    gone = Source("Gone/1", "Gone", "frame_images_DB/Gone/1/")
    with pytest.raises(BadSource, match="gone"), media.open(gone):
        pass


# CelebV-HQ


def test_celebv_hq_has_attributes_and_a_youtube_video_as_identity(tmp_path: Path) -> None:
    clips = ["-a_b_0", "-a_b_1", "M2Ohb0FAaJU_1", "gone_0", "gone_1"]
    put(tmp_path / "celebvhq_info.json", json.dumps(celebv_info(clips)))
    for clip in [*clips[:3], "extra_7"]:
        put(tmp_path / f"processed/{clip}.mp4")
    listing = listed("celebv-hq", tmp_path)
    sources = by_name(listing)
    assert {name: source.identity for name, source in sources.items()} == {
        "-a_b_0": "-a_b",
        "-a_b_1": "-a_b",
        "M2Ohb0FAaJU_1": "M2Ohb0FAaJU",
    }
    assert sources["-a_b_0"].labels == {"appearance": [1] + [0] * 39, "action": [0] * 34 + [1]}
    assert listing.labels == {
        "appearance": {"type": "binary", "names": APPEARANCE},
        "action": {"type": "binary", "names": ACTION},
    }
    assert listing.findings == (
        "celebv-hq: 2 of 5 described clips have no video, as gone_0, gone_1",
        "celebv-hq: 1 video is not described in celebvhq_info.json and left out, as extra_7",
        "celebv-hq: 3 videos, the official corpus has 35,666",
    )


def test_celebv_hq_lists_and_labels_may_lie_elsewhere(tmp_path: Path) -> None:
    clips = ["x_0", "x_1", "y_0"]
    info = put(tmp_path / "else/info.json", json.dumps(celebv_info(clips)))
    for clip in clips:
        put(tmp_path / f"raw/{clip}.mp4")
    put(tmp_path / "else/train.txt", "x_0\ny_0.mp4\nmissing\n")
    put(tmp_path / "else/val.txt", "x_1\n")
    listing = listed("celebv-hq", tmp_path / "raw", annotations=str(info), splits=str(info.parent))
    assert splits(listing) == {"x_0": "train", "x_1": "val", "y_0": "train"}
    assert has(listing, "celebv-hq: 1 of 3 listed train entries is not in the corpus, as missing")
    assert has(listing, "celebv-hq: 1 identity is in more than one split")
    assert has(listing, "celebv-hq: 2 train videos, the official split has 28,532")
    assert has(listing, "celebv-hq: 0 test videos, the official split has 3,567")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no celebvhq_info\.json in .*corpus\.annotations"),
        ("[]", "is not the celebvhq_info.json"),
        ('{"meta_info": {"appearance_mapping": ["a"], "action_mapping": []}, "clips": {"x_0": {"ytb_id": "x", '
         '"attributes": {"appearance": [2], "action": []}}}}', "no clip has an appearance of a 0 or 1 for each"),
        ('{"meta_info": {"appearance_mapping": ["a", "a"], "action_mapping": ["b"]}, "clips": {}}',
         "names an appearance attribute twice"),
        ('{"meta_info": {"appearance_mapping": ["a"], "action_mapping": ["b"]}, "clips": {"x_0": {}, "x_0": {}}}',
         "'x_0' is there twice in one object"),
    ],
)  # fmt: skip
def test_celebv_hq_labels_that_do_not_fit_are_named(content: str | None, message: str, tmp_path: Path) -> None:
    put(tmp_path / "x_0.mp4")
    if content:
        put(tmp_path / "celebvhq_info.json", content)
    with pytest.raises(UsageError, match=message):
        listed("celebv-hq", tmp_path)


def test_celebv_hq_clips_of_one_name_are_told(tmp_path: Path) -> None:
    put(tmp_path / "celebvhq_info.json", json.dumps(celebv_info(["x_0", "x_1", "aB_0", "Ab_0"])))
    for file in ("one/x_0.mp4", "two/x_0.mp4", "x_1.mp4", "x_1.mkv", "Ab_0.mp4", "AB_0.mp4"):
        put(tmp_path / file)
    listing = listed("celebv-hq", tmp_path)
    assert {source.name: source.path for source in listing.sources} == {
        "Ab_0": "Ab_0.mp4",
        "x_0": "one/x_0.mp4",
        "x_1": "x_1.mkv",
    }
    assert listing.findings == (
        "celebv-hq: 1 of 4 described clips has no video, as aB_0",
        "celebv-hq: 1 of them has a video whose name differs in upper and lower case alone: rename it, as aB_0 (AB_0)",
        "celebv-hq: 1 video is not described in celebvhq_info.json and left out, as AB_0",
        "celebv-hq: 2 videos have the name of another one and are left out, as two/x_0.mp4 (beside one/x_0.mp4), "
        "x_1.mp4 (beside x_1.mkv)",
        "celebv-hq: 3 videos, the official corpus has 35,666",
    )


def test_celebv_hq_entries_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    info = celebv_info(["good_0", "short_0", "two_0", "none_0", "who_0"])
    clips = info["clips"]
    clips["short_0"]["attributes"]["appearance"].pop()
    clips["two_0"]["attributes"]["action"][3] = 2
    clips["two_0"]["attributes"]["hair"] = [1]
    clips["none_0"] = None
    del clips["who_0"]["ytb_id"]
    put(tmp_path / "celebvhq_info.json", json.dumps(info))
    for clip in clips:
        put(tmp_path / f"{clip}.mp4")
    listing = listed("celebv-hq", tmp_path)
    assert {source.name: [*source.labels] for source in listing.sources} == {
        "good_0": ["appearance", "action"],
        "none_0": [],
        "short_0": ["action"],
        "two_0": ["appearance"],
        "who_0": ["appearance", "action"],
    }
    assert {source.identity for source in listing.sources} == {"good", "none", "short", "two", "who"}
    assert listing.findings[:-1] == (
        "celebv-hq: 2 of 5 described clips have no appearance label: not a 0 or 1 for each of 40 names, "
        "as none_0, short_0",
        "celebv-hq: 2 of 5 described clips have no action label: not a 0 or 1 for each of 35 names, as none_0, two_0",
        "celebv-hq: 2 of 5 described clips have no ytb_id: their names tell the identity, as none_0, who_0",
        "celebv-hq: 1 kind of attributes is not known and left out, as hair",
    )


def test_celebv_hq_has_40_and_35_attributes(tmp_path: Path) -> None:
    info = celebv_info(["x_0"])
    info["meta_info"]["appearance_mapping"] = [*APPEARANCE, "one more"]
    info["clips"]["x_0"]["attributes"]["appearance"] = [0] * 41
    put(tmp_path / "celebvhq_info.json", json.dumps(info))
    put(tmp_path / "x_0.mp4")
    listing = listed("celebv-hq", tmp_path)
    assert listing.findings[0] == ("celebv-hq: celebvhq_info.json names 41 appearance attributes, the official one 40")
    assert listing.labels["appearance"]["names"][-1] == "one more"


# CMU-MOSEI

ROW = {
    "video_id": "-3g5yACwYnA",
    "clip_id": 0,
    "start": 1.5,
    "end": 4.25,
    "text": "It is, well, fine",
    "sentiment": -0.5,
    "happy": 0,
    "sad": 0.33,
    "anger": 0,
    "surprise": 0,
    "disgust": 0.66,
    "fear": 0,
    "mode": "train",
}


def test_mosei_segments_are_files_or_times_and_never_merged(tmp_path: Path) -> None:
    rows = [
        ROW,
        {**ROW, "clip_id": 1, "start": 4.25, "end": 6},
        {**ROW, "clip_id": 2, "start": -0.01, "end": 7, "sentiment": ""},
        {**ROW, "video_id": "100178", "clip_id": 5, "mode": "valid"},
        {**ROW, "video_id": "gone", "mode": "test"},
    ]
    put_csv(tmp_path / "labels.csv", rows)
    put(tmp_path / "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4")
    put(tmp_path / "Raw/Videos/Segmented/Combined/-3g5yACwYnA_1.mp4")
    put(tmp_path / "Raw/100178/5.mp4")
    put(tmp_path / "Raw/unlabelled.mp4")
    listing = listed("mosei", tmp_path)
    sources = by_name(listing)
    full = "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4"
    assert {name: (source.path, source.span) for name, source in sources.items()} == {
        "-3g5yACwYnA_0": (full, (1.5, 4.25)),
        "-3g5yACwYnA_1": ("Raw/Videos/Segmented/Combined/-3g5yACwYnA_1.mp4", None),
        "-3g5yACwYnA_2": (full, (0.0, 7.0)),
        "100178_5": ("Raw/100178/5.mp4", None),
    }
    assert sources["-3g5yACwYnA_0"].labels == {"sentiment": -0.5, "emotion": [0, 0.33, 0, 0, 0.66, 0]}
    assert "sentiment" not in sources["-3g5yACwYnA_2"].labels
    assert sources["-3g5yACwYnA_0"].text == "It is, well, fine"
    assert sources["-3g5yACwYnA_0"].identity == "-3g5yACwYnA"
    assert [source.split for source in listing.sources] == ["train", "train", "train", "val"]
    assert listing.labels["emotion"]["names"] == ["happy", "sad", "anger", "surprise", "disgust", "fear"]
    assert listing.labels["sentiment"] == {"type": "real", "range": [-3, 3]}
    assert has(listing, "mosei: 1 of 5 labelled segments has no video, as gone_0")
    assert has(listing, "mosei: 1 video has no label and is left out, as Raw/unlabelled.mp4")
    assert has(listing, "mosei: 3 train videos, the official split has 16,726")


def test_mosei_files_of_one_name_are_told_and_whole_videos_are_no_strangers(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "clip_id": 1}, {**ROW, "video_id": "whole"}, {**ROW, "video_id": "aBc"}]
    put_csv(tmp_path / "labels.csv", rows)
    for file in ("a/-3g5yACwYnA_0.mp4", "b/-3g5yACwYnA_0.mkv", "c/-3g5yACwYnA_1.mp4", "full/-3g5yACwYnA.mp4"):
        put(tmp_path / file)
    for file in ("full/whole.mp4", "other/whole.avi", "full/ABC.mp4", "x.mp4"):
        put(tmp_path / file)
    listing = listed("mosei", tmp_path)
    assert {source.name: source.path for source in listing.sources} == {
        "-3g5yACwYnA_0": "a/-3g5yACwYnA_0.mp4",
        "-3g5yACwYnA_1": "c/-3g5yACwYnA_1.mp4",
        "whole_0": "full/whole.mp4",
    }
    assert listing.findings[:4] == (
        "mosei: 1 of 4 labelled segments has no video, as aBc_0",
        "mosei: 1 name differs from a video's in upper and lower case alone, as aBc (ABC)",
        "mosei: 2 videos have the name of another one and are left out, as b/-3g5yACwYnA_0.mkv, other/whole.avi",
        "mosei: 2 videos have no label and are left out, as full/ABC.mp4, x.mp4",
    )


def test_mosei_labels_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sentiment": 0.5},
        {"sentiment": 9},
        {"sentiment": "glad", "happy": ""},
        {"sentiment": "", **dict.fromkeys(("happy", "sad", "anger", "disgust", "fear"), "")},
        {"fear": -1},
    ]
    full = [{**ROW, "note": "", **row, "clip_id": clip, "mode": ""} for clip, row in enumerate(rows)]
    put_csv(tmp_path / "labels.csv", [{key: cell for key, cell in row.items() if key != "surprise"} for row in full])
    put(tmp_path / "-3g5yACwYnA.mp4")
    listing = listed("mosei", tmp_path)
    assert [[*source.labels] for source in listing.sources] == [
        ["sentiment", "emotion"],
        ["emotion"],
        [],
        [],
        ["sentiment"],
    ]
    assert {source.split for source in listing.sources} == {None}
    assert listing.findings[:4] == (
        "mosei: labels.csv has no column for 1 of 7 labels, as surprise",
        "mosei: 1 column of labels.csv is not known and left out, as note",
        "mosei: 2 of 5 labelled segments have no sentiment label: not all a number from -3 to 3, "
        "as -3g5yACwYnA_1, -3g5yACwYnA_2",
        "mosei: 2 of 5 labelled segments have no emotion label: not all a number from 0 to 3, "
        "as -3g5yACwYnA_2, -3g5yACwYnA_4",
    )


def test_mosei_reads_the_folds_of_the_sdk_without_running_them(tmp_path: Path) -> None:
    put_csv(tmp_path / "labels.csv", [{**ROW, "mode": "test"}, {**ROW, "video_id": "other", "mode": "train"}])
    put(tmp_path / "-3g5yACwYnA_0.mp4")
    put(tmp_path / "other_0.mp4")
    folds = put(
        tmp_path / "folds.py",
        f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nstandard_train_fold = ['-3g5yACwYnA']\n"
        "standard_valid_fold=['other',]\nstandard_test_fold=[]\n",
    )
    listing = listed("mosei", tmp_path, splits=str(folds))
    assert splits(listing) == {"-3g5yACwYnA_0": "train", "other_0": "val"}
    assert not (tmp_path / "ran").exists()
    put(folds, "standard_train_fold = open('x').read()")
    with pytest.raises(UsageError, match="can't be read"):
        listed("mosei", tmp_path, splits=str(folds))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"name": "x"}], "needs the columns video_id and clip_id, it has name"),
        ([ROW, ROW], "two rows of segment -3g5yACwYnA_0: average"),
        ([{**ROW, "clip_id": ""}], "labels.csv: a segment of -3g5yACwYnA has no clip_id: mend it"),
        ([{**ROW, "video_id": ""}], "labels.csv: segment 0 has no video_id: mend it"),
        ([{**ROW, "mode": "training"}], "segment -3g5yACwYnA_0 is of split training: choose from train"),
        ([{**ROW, "end": 1}], "segment -3g5yACwYnA_0 needs a start and a later end"),
    ],
)
def test_mosei_tables_that_do_not_fit_are_named(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    put_csv(tmp_path / "labels.csv", rows)
    put(tmp_path / "-3g5yACwYnA.mp4")
    with pytest.raises(UsageError, match=message):
        listed("mosei", tmp_path)


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
