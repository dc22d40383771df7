"""LRS2: `mvlrs_v1/main/<id>/<n>.mp4` with a transcript beside each; sound is kept."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from pipeline.storage import NotFound
from preprocess.corpora.base import Gap, Listing, Media, Source
from preprocess.corpora.findings import finding, gap_finding
from preprocess.corpora.folder import is_video
from preprocess.corpora.splits import Official, assign, line_entry, read_lists

TOP = "mvlrs_v1/"
PARTS = ("main", "pretrain")
READS_AT_ONCE = 16
_DEPTH = 3  # <part>/<id>/<n>
OFFICIAL = Official({"train": 45838, "val": 1082, "test": 1243})
"""Of the part main."""


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """The videos of `corpus.parts` (main, unless pretrain is asked for) with transcripts; a broadcast is an identity.

    `corpus.path` is the folder that holds `mvlrs_v1`, or that one itself. Split lists are the official `train.txt`,
    `val.txt`, `test.txt` in it; everything in pretrain is for training.
    """
    parts = cfg.parts or PARTS[:1]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UsageError(f"corpus.parts: LRS2 has no {unknown[0]}: choose from {', '.join(PARTS)}")
    found = [video for part in dict.fromkeys(parts) for video in _videos(media, part)]
    sources = [Source(str(name), name.parts[1], file) for name, file in found if len(name.parts) == _DEPTH]
    astray = [file for name, file in found if len(name.parts) != _DEPTH]
    findings = finding("lrs2", astray, "{n} (video does|videos do) not lie in a folder <id> and (is|are) left out")
    listing = Listing(tuple(sorted(sources, key=lambda source: source.name)), findings=tuple(findings), audio=True)
    lists = read_lists(media, cfg.splits, ("", TOP.rstrip("/")), _first_word)
    if lists is not None and "pretrain" in parts:
        lists |= {source.name: "train" for source in listing.sources if source.name.startswith("pretrain/")}
    official = OFFICIAL if set(parts) == {"main"} else None
    return _with_texts(media, assign("lrs2", listing, lists, _keys, official))


def _videos(media: Media, part: str) -> list[tuple[PurePosixPath, str]]:
    """Names and files of all videos of a part; a name is `<part>/<id>/<n>` where they lie as they should."""
    for top in (TOP, ""):
        files = [file for file in media.files(f"{top}{part}/") if is_video(file)]
        if files:
            break
    return [(PurePosixPath(file.removeprefix(top)).with_suffix(""), file) for file in files]


def _keys(source: Source) -> tuple[str, ...]:
    part, _, name = source.name.partition("/")
    return (name,) if part == "main" else (source.name,)


def _first_word(entry: Any) -> Iterable[str]:
    return " ".join(line_entry(entry)).split()[:1]  # lines of test.txt end in a mark, NF or MV


def _with_texts(media: Media, listing: Listing) -> Listing:
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        texts = list(pool.map(lambda source: _text(media, source), listing.sources))
    sources = tuple(
        replace(source, text=text) if text else source for source, text in zip(listing.sources, texts, strict=True)
    )
    missing = tuple(source.name for source in sources if not source.text)
    gap = Gap("max_unlabelled", "videos (has|have) no transcript", missing, len(sources))
    findings = (*listing.findings, *gap_finding("lrs2", gap))
    return replace(listing, sources=sources, findings=findings, gaps=(*listing.gaps, gap))


def _text(media: Media, source: Source) -> str:
    """The sentence after "Text:" in the transcript; empty where there is none."""
    try:
        data = media.read(str(PurePosixPath(source.path).with_suffix(".txt")))
    except NotFound:
        return ""
    lines = data.decode(errors="replace").splitlines()
    return next((line.removeprefix("Text:").strip() for line in lines if line.startswith("Text:")), "")
