"""The layouts of YouTube Faces and CelebV-HQ: names, identities, splits, labels, and what is said of mismatches."""

import json
from pathlib import Path
from typing import get_args

import pytest
from corpora import ACTION, APPEARANCE, celebv_info, put, put_ytf
from listings import by_name, has, listed, splits

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from pipeline.storage import open_store
from preprocess.corpora import LAYOUTS, Source, open_media
from preprocess.quarantine import BadSource


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
        "celebv-hq: 1 of 4 videos is not described in celebvhq_info.json and left out, as extra_7",
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
        "celebv-hq: 1 of 4 videos is not described in celebvhq_info.json and left out, as AB_0",
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
    assert listing.findings[1] == "celebv-hq: 1 appearance attribute is not of the official file, as one more"
    assert listing.labels["appearance"]["names"][-1] == "one more"
