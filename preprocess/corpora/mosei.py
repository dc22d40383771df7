"""CMU-MOSEI: segments of YouTube videos with a sentiment and six emotions, cut already or named by their times."""

import ast
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Listing, Media, Source, Split
from preprocess.corpora.documents import Row, column, number, read_named, read_table
from preprocess.corpora.findings import finding
from preprocess.corpora.folder import is_video
from preprocess.corpora.splits import NAMES, Official, assign, by_name, line_entry, read_lists
from preprocess.decode.video import Span

LABELS = "labels.csv"
OFFICIAL = Official({"train": 16726, "val": 1871, "test": 4662})
EMOTIONS: Mapping[str, tuple[str, ...]] = {
    "happy": ("happy", "happiness"),
    "sad": ("sad", "sadness"),
    "anger": ("anger", "angry"),
    "surprise": ("surprise",),
    "disgust": ("disgust",),
    "fear": ("fear",),
}
"""Emotions, and what their columns are called."""

_FOLDS: Mapping[str, Split] = {
    "standard_train_fold": "train",
    "standard_valid_fold": "val",
    "standard_test_fold": "test",
}


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """One source for each row of the label table whose video is there; a YouTube video is an identity.

    A segment is a file of its own (`<video>_<clip>.mp4` or `<video>/<clip>.mp4`), or the seconds `start` to `end` of
    `<video>.mp4`. Segments are never merged, also where they follow each other. Splits: lists of videos or segments,
    the SDK's `cmu_mosei_std_folds.py`, or the table's column `mode` or `split`.
    """
    path = cfg.annotations or LABELS
    rows = read_table(media, path, "corpus.annotations")
    columns = _columns(rows, path)
    files = {str(PurePosixPath(file).with_suffix("")): file for file in media.files() if is_video(file)}
    stems = {key: file for path, file in files.items() for key in _keys_of_file(path)}
    sources: dict[str, Source] = {}
    missing, used = [], set()
    for row in rows:
        name = _name(row, columns)
        if name in sources or name in missing:
            raise UsageError(f"{path} has two rows of segment {name}: average what several annotators said into one")
        file, span = _place(row, columns, stems, path)
        if file is None:
            missing.append(name)
            continue
        used.add(file)
        split = NAMES.get(str(row[columns["split"]]).lower()) if "split" in columns else None
        text = str(row[columns["text"]] or "") if "text" in columns else ""
        sources[name] = Source(name, str(row[columns["video"]]), file, span, split, _labels(row, columns), text)
    findings = [
        *finding("mosei", missing, f"{{n}} of {len(rows):,} labelled segments have no video"),
        *finding("mosei", set(files.values()) - used, "{n} videos have no label and are left out"),
    ]
    listing = Listing(tuple(source for _, source in sorted(sources.items())), _schema(columns), tuple(findings))
    lists = _lists(media, cfg.splits)
    if lists is None and "split" in columns:
        lists = {source.name: source.split for source in listing.sources if source.split}
    return assign("mosei", listing, lists, lambda source: (source.name, source.identity), OFFICIAL)


def _columns(rows: list[Row], path: str) -> dict[str, str]:
    """Names of the table's columns by what they mean."""
    known = {
        "video": ("video_id", "video", "file"),
        "clip": ("clip_id", "clip", "segment", "index"),
        "start": ("start",),
        "end": ("end",),
        "text": ("text",),
        "split": ("split", "mode"),
        "sentiment": ("sentiment", "label"),
        **EMOTIONS,
    }
    found = {what: name for what, names in known.items() if (name := column(rows, *names))}
    if "video" not in found or "clip" not in found:
        raise UsageError(f"{path} needs the columns video_id and clip_id, it has {', '.join(rows[0])}")
    return found


def _keys_of_file(path: str) -> tuple[str, ...]:
    """Names that a file may be looked up by: `<video>_<clip>` or `<video>`, and `<folder>/<name>` as a segment."""
    parts = PurePosixPath(path).parts
    return (parts[-1], "_".join(parts[-2:])) if len(parts) > 1 else (parts[-1],)


def _name(row: Row, columns: Mapping[str, str]) -> str:
    clip = row[columns["clip"]]
    whole = isinstance(clip, float) and clip.is_integer()  # a column of integers that pandas made floats
    return f"{row[columns['video']]}_{int(clip) if whole else clip}"


def _place(row: Row, columns: Mapping[str, str], stems: Mapping[str, str], path: str) -> tuple[str | None, Span | None]:
    """File and seconds of a segment; a file of its own is preferred."""
    name = _name(row, columns)
    own = stems.get(name)
    if own or "start" not in columns or "end" not in columns:
        return own, None
    start, end = number(row[columns["start"]]), number(row[columns["end"]])
    if start is None or end is None or end <= max(start, 0.0):
        raise UsageError(f"{path}: segment {name} needs a start and a later end in seconds")
    return stems.get(str(row[columns["video"]])), (max(start, 0.0), end)


def _labels(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    sentiment = number(row[columns["sentiment"]]) if "sentiment" in columns else None
    emotions = [number(row[columns[name]]) for name in EMOTIONS if name in columns]
    labels: dict[str, Any] = {}
    if sentiment is not None:
        labels["sentiment"] = sentiment
    if emotions and None not in emotions:
        labels["emotion"] = emotions
    return labels


def _schema(columns: Mapping[str, str]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if "sentiment" in columns:
        schema["sentiment"] = {"type": "real", "range": [-3, 3]}
    if names := [name for name in EMOTIONS if name in columns]:
        schema["emotion"] = {"type": "real", "range": [0, 3], "names": names}
    return schema


def _lists(media: Media, where: str) -> dict[str, Split] | None:
    if not where.endswith(".py"):
        return read_lists(media, where)
    # The SDK publishes its folds as Python: read as literals, never run.
    data = read_named(media, where, "corpus.splits")
    folds: dict[Split, list[Any]] = {}
    try:
        for node in ast.parse(data).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _FOLDS:
                folds[_FOLDS[node.targets[0].id]] = list(ast.literal_eval(node.value))
    except (SyntaxError, ValueError, TypeError) as error:
        raise UsageError(f"corpus.splits: {where} can't be read ({error})") from None
    if not folds:
        raise UsageError(f"corpus.splits: {where} defines none of {', '.join(_FOLDS)}")
    return by_name(folds, line_entry, where)
