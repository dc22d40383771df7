"""CelebV-HQ: the cut clips `<clip>.mp4` and `celebvhq_info.json` with their attributes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Gap, Listing, Media, Source
from preprocess.corpora.documents import read_json
from preprocess.corpora.findings import finding, gap_finding, other_case
from preprocess.corpora.folder import is_video, without_suffix
from preprocess.corpora.splits import Official, assign, line_entry, read_lists

KIND = "celebv-hq"
INFO = "celebvhq_info.json"
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "appearance": (
        *("blurry", "male", "young", "chubby", "pale_skin", "rosy_cheeks", "oval_face", "receding_hairline", "bald"),
        *("bangs", "black_hair", "blonde_hair", "gray_hair", "brown_hair", "straight_hair", "wavy_hair", "long_hair"),
        *("arched_eyebrows", "bushy_eyebrows", "bags_under_eyes", "eyeglasses", "sunglasses", "narrow_eyes"),
        *("big_nose", "pointy_nose", "high_cheekbones", "big_lips", "double_chin", "no_beard", "5_o_clock_shadow"),
        *("goatee", "mustache", "sideburns", "heavy_makeup", "wearing_earrings", "wearing_hat", "wearing_lipstick"),
        *("wearing_necklace", "wearing_necktie", "wearing_mask"),
    ),
    "action": (
        *("blow", "chew", "close_eyes", "cough", "cry", "drink", "eat", "frown", "gaze", "glare", "head_wagging"),
        *("kiss", "laugh", "listen_to_music", "look_around", "make_a_face", "nod", "play_instrument", "read"),
        *("shake_head", "shout", "sigh", "sing", "sleep", "smile", "smoke", "sneer", "sneeze", "sniff", "talk"),
        *("turn", "weep", "whisper", "wink", "yawn"),
    ),
}
"""Kinds of attributes that become labels, and those that the official file names."""

UNUSED = frozenset({"emotion"})
"""Attributes that are known and no labels: an emotion holds for a part of a clip only."""

OFFICIAL = Official({"train": 28532, "val": 3567, "test": 3567}, total=35666)


@dataclass(frozen=True)
class Info:
    """What celebvhq_info.json says: the names of the attributes, by kind, and the entry of each clip."""

    path: str
    names: Mapping[str, list[str]]
    clips: Mapping[str, Any]


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """Each described clip that is there, wherever it lies below the corpus; the identity is its YouTube video.

    Split lists name clips, with or without `.mp4`.
    """
    info = _read_info(media, cfg.annotations or INFO)
    videos = [(PurePosixPath(file).stem, file) for file in media.files() if is_video(file)]
    sources = [_source(clip, file, info) for clip, file in videos if clip in info.clips]
    there = {clip for clip, _ in videos}
    missing = sorted(info.clips.keys() - there)
    strangers = sorted(there - info.clips.keys())
    no_video = Gap("max_missing", "described clips (has|have) no video", tuple(missing), len(info.clips))
    no_row = Gap(
        "max_unlabelled", f"videos (is|are) not described in {INFO} and left out", tuple(strangers), len(there)
    )
    findings = [
        *_info_findings(info),
        *gap_finding(KIND, no_video),
        *finding(
            KIND,
            other_case(missing, strangers),
            "{n} of them (has|have) a video whose name differs in upper and lower case alone: rename (it|them)",
        ),
        *gap_finding(KIND, no_row),
    ]
    labels = {kind: {"type": "binary", "names": names} for kind, names in info.names.items()}
    listing = Listing(
        tuple(sorted(sources, key=lambda source: source.name)), labels, tuple(findings), gaps=(no_video, no_row)
    )
    lists = read_lists(media, cfg.splits, entries=_clip_of_entry)
    return assign(KIND, listing, lists, lambda source: (source.name,), OFFICIAL)


def _read_info(media: Media, path: str) -> Info:
    content = read_json(media, path, "corpus.annotations")
    try:
        names = {kind: [str(name) for name in content["meta_info"][f"{kind}_mapping"]] for kind in ATTRIBUTES}
        info = Info(path, names, dict(content["clips"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not the {INFO} of CelebV-HQ ({type(error).__name__}: {error})") from None
    for kind, named in names.items():
        if len(set(named)) < len(named):
            raise UsageError(f"{path} names an {kind} attribute twice: mend it")
        if info.clips and not any(_values(entry, kind, named) for entry in info.clips.values()):
            raise UsageError(f"{path}: no clip has an {kind} of a 0 or 1 for each of {len(named)} names: mend it")
    return info


def _source(clip: str, file: str, info: Info) -> Source:
    entry = info.clips[clip]
    labels = {kind: values for kind, names in info.names.items() if (values := _values(entry, kind, names))}
    return Source(clip, _identity(entry) or clip.rpartition("_")[0] or clip, file, labels=labels)


def _identity(entry: Any) -> str:
    """The YouTube video of a clip, empty where its entry does not say it."""
    return str(entry.get("ytb_id") or "") if isinstance(entry, dict) else ""


def _attributes(entry: Any) -> Mapping[str, Any]:
    found = entry.get("attributes") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _values(entry: Any, kind: str, names: list[str]) -> list[int] | None:
    """A 0 or 1 for each name, None where a clip has something else."""
    values = _attributes(entry).get(kind)
    if not isinstance(values, list) or len(values) != len(names) or not all(value in (0, 1) for value in values):
        return None
    return [int(value) for value in values]


def _info_findings(info: Info) -> list[str]:
    lines = [
        f"{KIND}: {info.path} names {len(info.names[kind])} {kind} attributes, the official one {len(official)}"
        for kind, official in ATTRIBUTES.items()
        if len(info.names[kind]) != len(official)
    ]
    for kind, official in ATTRIBUTES.items():
        strange = set(info.names[kind]) - set(official)
        lines += finding(KIND, strange, f"{{n}} {kind} (attribute|attributes) (is|are) not of the official file")
    described = f"{{n}} of {len(info.clips):,} described clips (has|have)"
    for kind, names in info.names.items():
        wrong = [clip for clip, entry in info.clips.items() if _values(entry, kind, names) is None]
        lines += finding(KIND, wrong, f"{described} no {kind} label: not a 0 or 1 for each of {len(names)} names")
    nobody = [clip for clip, entry in info.clips.items() if not _identity(entry)]
    lines += finding(KIND, nobody, f"{described} no ytb_id: (its name tells|their names tell) the identity")
    others = {kind for entry in info.clips.values() for kind in _attributes(entry)} - ATTRIBUTES.keys() - UNUSED
    return lines + finding(KIND, others, "{n} (kind|kinds) of attributes (is|are) not known and left out")


def _clip_of_entry(entry: Any) -> Iterable[str]:
    return [without_suffix(name) for name in line_entry(entry)]
