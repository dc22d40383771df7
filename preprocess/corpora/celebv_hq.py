"""CelebV-HQ: the cut clips `<clip>.mp4` and `celebvhq_info.json` with their attributes."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Listing, Media, Source
from preprocess.corpora.documents import read_json
from preprocess.corpora.findings import finding
from preprocess.corpora.folder import is_video
from preprocess.corpora.splits import Official, assign, read_lists

INFO = "celebvhq_info.json"
ATTRIBUTES = ("appearance", "action")
OFFICIAL = Official({"train": 28532, "val": 3567, "test": 3567}, total=35666)


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """Each described clip that is there, wherever it lies below the corpus; the identity is its YouTube video.

    Split lists name clips, with or without `.mp4`.
    """
    path = cfg.annotations or INFO
    info = read_json(media, path, "corpus.annotations")
    try:
        names = {kind: [str(name) for name in info["meta_info"][f"{kind}_mapping"]] for kind in ATTRIBUTES}
        described = {str(clip): _described(entry, names) for clip, entry in info["clips"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not the {INFO} of CelebV-HQ ({type(error).__name__}: {error})") from None
    files = {PurePosixPath(file).stem: file for file in media.files() if is_video(file)}
    sources = tuple(
        Source(clip, identity, files[clip], labels=labels)
        for clip, (identity, labels) in sorted(described.items())
        if clip in files
    )
    findings = [
        *finding(
            "celebv-hq", described.keys() - files.keys(), f"{{n}} of {len(described):,} described clips have no video"
        ),
        *finding(
            "celebv-hq", files.keys() - described.keys(), f"{{n}} videos are not described in {INFO} and left out"
        ),
    ]
    labels = {kind: {"type": "binary", "names": names[kind]} for kind in ATTRIBUTES}
    listing = Listing(sources, labels, tuple(findings))
    lists = read_lists(media, cfg.splits, entries=lambda entry: (str(entry).removesuffix(".mp4"),))
    return assign("celebv-hq", listing, lists, lambda source: (source.name,), OFFICIAL)


def _described(entry: Mapping[str, Any], names: Mapping[str, list[str]]) -> tuple[str, dict[str, list[int]]]:
    """Identity and labels of a clip."""
    labels = {kind: [int(value) for value in entry["attributes"][kind]] for kind in ATTRIBUTES}
    for kind, values in labels.items():
        if len(values) != len(names[kind]) or not set(values) <= {0, 1}:
            raise ValueError(
                f"{kind} of a clip of {entry['ytb_id']} is not a 0 or 1 for each of {len(names[kind])} names"
            )
    return str(entry["ytb_id"]), labels
