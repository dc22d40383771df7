"""FaceForensics++: original and manipulated videos in one of three compressions, and the split lists of pairs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Gap, Listing, Media, Source, Split
from preprocess.corpora.folder import is_video
from preprocess.corpora.people import groups_of
from preprocess.corpora.splits import Official, assign, read_lists

ORIGINAL = "original"
FAKES = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
STANDARD = (ORIGINAL, *FAKES[:4])
"""The original videos and the four manipulations of the paper make 3,600/700/700 videos; FaceShifter came later."""

COMPRESSIONS = ("raw", "c0", "c23", "c40")

_SAME = {"c0": ("c0", "raw"), "raw": ("raw", "c0")}
_OF_ONE: dict[Split, int] = {"train": 720, "val": 140, "test": 140}


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """The videos of `corpus.parts` in `corpus.compression`; a manipulated one is of the pair it was made from.

    A pair of videos, with all that was made from it, is one identity: the smaller number of the two. Split lists are
    the official `train.json`, `val.json`, `test.json` with pairs, in the corpus or its folder `splits`; without them
    all manipulated videos in the corpus tell the pairs, also those that are not taken.
    """
    parts = cfg.parts or STANDARD
    unknown = [part for part in parts if part not in (ORIGINAL, *FAKES)]
    if unknown:
        raise UsageError(
            f"corpus.parts: FaceForensics++ has no {unknown[0]}: choose from {', '.join((ORIGINAL, *FAKES))}"
        )
    found: list[tuple[str, str]] = []
    findings = []
    for part in parts:
        files = _videos(media, part, cfg.compression)
        found += [(part, file) for file in files]
        if not files:
            findings.append(
                f"ffpp: there are no {part} videos in {cfg.compression}: see corpus.compression, corpus.parts"
            )
    lists = read_lists(media, cfg.splits, ("", "splits"), _pair)
    pairs = [*lists] if lists else _manipulated(media)
    if not any("_" in name for name in pairs):
        findings.append("ffpp: neither split lists nor manipulated videos tell which originals are pairs")
    people = _people([*pairs, *(PurePosixPath(file).stem for _, file in found)])
    sources = tuple(sorted((_source(part, file, cfg, people) for part, file in found), key=lambda source: source.name))
    labels = {
        "fake": {"type": "class", "names": ["real", "fake"]},
        "method": {"type": "class", "names": [ORIGINAL, *FAKES]},
    }
    if lists is not None:
        manipulated = {part != ORIGINAL for part in parts}
        lists = {name: split for name, split in lists.items() if ("_" in name) in manipulated}
    official = Official({split: count * len(set(parts)) for split, count in _OF_ONE.items()})
    listing = Listing(sources, labels, tuple(findings), gaps=tuple(_part_gaps(parts, found, lists or {})))
    return assign("ffpp", listing, lists, lambda source: (PurePosixPath(source.path).stem,), official)


def _part_gaps(parts: Sequence[str], found: Iterable[tuple[str, str]], listed: Iterable[str]) -> Iterator[Gap]:
    """What the split lists name and a part has no video of; the parts can't stand in for each other."""
    there = {(part, PurePosixPath(file).stem) for part, file in found}
    for part in parts:
        wanted = {name for name in listed if ("_" in name) == (part != ORIGINAL)}
        missing = sorted(name for name in wanted if (part, name) not in there)
        yield Gap("max_missing", f"listed videos of {part} (is|are) not there", tuple(missing), len(wanted))


def _videos(media: Media, part: str, compression: str) -> list[str]:
    top = "original_sequences/youtube" if part == ORIGINAL else f"manipulated_sequences/{part}"
    for name in _SAME.get(compression, (compression,)):
        files = [file for file in media.files(f"{top}/{name}/videos/") if is_video(file)]
        if files:
            return files
    return []


def _manipulated(media: Media) -> list[str]:
    """Names of all manipulated videos of the corpus."""
    folders = [f"manipulated_sequences/{part}/{name}/videos/" for part in FAKES for name in COMPRESSIONS]
    return [PurePosixPath(file).stem for folder in folders for file in media.files(folder) if is_video(file)]


def _source(part: str, file: str, cfg: CorpusConfig, people: dict[str, str]) -> Source:
    stem = PurePosixPath(file).stem
    labels = {"fake": "real" if part == ORIGINAL else "fake", "method": part}
    numbers = tuple(stem.split("_"))
    return Source(f"{part}/{cfg.compression}/{stem}", people[numbers[0]], file, labels=labels, people=numbers)


def _pair(entry: Any) -> Iterable[str]:
    """Names that a pair of a split list stands for: two originals, and what was made from them in both directions."""
    if not isinstance(entry, list) or len(entry) != 2:
        raise UsageError(f"corpus.splits: {entry!r} is no pair of FaceForensics++: use the official lists")
    one, other = (str(number) for number in entry)
    return (one, other, f"{one}_{other}", f"{other}_{one}")


def _people(names: Iterable[str]) -> dict[str, str]:
    """The identity of each original by its number: the smallest one that is connected to it through names of pairs."""
    groups = groups_of(name.split("_") for name in names)
    return {number: min(group) for group in groups.subsets() for number in group}
