"""CMU-MOSEI: segments of YouTube videos with a sentiment and six emotions, cut already or named by their times."""

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Gap, Listing, Media, Source, Split
from preprocess.corpora.documents import Row, column, number, plain, read_named, read_table
from preprocess.corpora.findings import finding, gap_finding, other_case
from preprocess.corpora.folder import is_video
from preprocess.corpora.splits import Official, assign, by_name, line_entry, read_lists, split_of
from preprocess.decode.video import Span

KIND = "mosei"
LABELS = "labels.csv"
SENTIMENT, EMOTION = (-3, 3), (0, 3)
"""Lowest and highest of the labels."""

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


@dataclass(frozen=True)
class Table:
    """The label table.

    Attributes:
        path: where the configuration says it is.
        columns: its columns by what they mean.
        segments: its rows by the names of their segments, `<video>_<clip>`.
        others: its columns that mean nothing here.
    """

    path: str
    columns: Mapping[str, str]
    segments: Mapping[str, Row]
    others: Collection[str]

    def cell(self, segment: str, what: str) -> Any:
        """What it says of a segment; None where it says nothing."""
        return self.segments[segment][self.columns[what]] if what in self.columns else None

    def video(self, segment: str) -> str:
        """The YouTube video that a segment is of."""
        return plain(self.cell(segment, "video"))


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """One source for each row of the label table whose video is there; a YouTube video is an identity.

    A segment is a file of its own (`<video>_<clip>.mp4` or `<video>/<clip>.mp4`), or the seconds `start` to `end` of
    `<video>.mp4`. Segments are never merged, also where they follow each other. Splits: lists of videos or segments,
    the SDK's `cmu_mosei_std_folds.py`, or the table's column `mode` or `split`.
    """
    table = _read_table(media, cfg.annotations or LABELS)
    files = [file for file in media.files() if is_video(file)]
    by_key: dict[str, str] = {}
    for file in files:
        for key in _keys(file):
            by_key.setdefault(key, file)
    places = {segment: _place(table, segment, by_key) for segment in sorted(table.segments)}
    sources = [_source(table, segment, file, span) for segment, (file, span) in places.items() if file is not None]
    gaps = _gaps(table, files, sources)
    findings = [*_file_findings(table, files, sources, gaps), *_label_findings(table)]
    listing = Listing(tuple(sources), _schema(table.columns), tuple(findings), gaps=gaps)
    lists = _lists(media, cfg.splits)
    if lists is None:
        lists = {source.name: source.split for source in sources if source.split} or None
    return assign(KIND, listing, lists, lambda source: (source.name, source.identity), OFFICIAL)


def _read_table(media: Media, path: str) -> Table:
    rows = read_table(media, path, "corpus.annotations")
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
    columns = {what: name for what, names in known.items() if (name := column(rows, *names))}
    if "video" not in columns or "clip" not in columns:
        raise UsageError(f"{path} needs the columns video_id and clip_id, it has {', '.join(rows[0])}")
    segments: dict[str, Row] = {}
    for row in rows:
        video, clip = (plain(row[columns[what]]) for what in ("video", "clip"))
        if not video or not clip:
            where = f"segment {clip}" if clip else f"a segment of {video}" if video else "a row"
            raise UsageError(f"{path}: {where} has no {columns['clip' if video else 'video']}: mend it")
        name = f"{video}_{clip}"
        if segments.setdefault(name, row) is not row:
            raise UsageError(f"{path} has two rows of segment {name}: average what several annotators said into one")
    return Table(path, columns, segments, rows[0].keys() - columns.values())


def _keys(file: str) -> tuple[str, ...]:
    """Names that a file may be looked up by: `<video>_<clip>` or `<video>`, and `<folder>/<name>` as a segment."""
    parts = PurePosixPath(file).with_suffix("").parts
    return (parts[-1], "_".join(parts[-2:])) if len(parts) > 1 else (parts[-1],)


def _place(table: Table, segment: str, by_key: Mapping[str, str]) -> tuple[str | None, Span | None]:
    """File and seconds of a segment; a file of its own is preferred."""
    own = by_key.get(segment)
    if own or "start" not in table.columns or "end" not in table.columns:
        return own, None
    start, end = (number(table.cell(segment, what)) for what in ("start", "end"))
    if start is None or end is None or end <= max(start, 0.0):
        raise UsageError(f"{table.path}: segment {segment} needs a start and a later end in seconds")
    return by_key.get(table.video(segment)), (max(start, 0.0), end)


def _source(table: Table, segment: str, file: str, span: Span | None) -> Source:
    return Source(
        name=segment,
        identity=table.video(segment),
        path=file,
        span=span,
        split=split_of(table.cell(segment, "split"), f"{table.path}: segment {segment}"),
        labels=_labels(table, segment),
        text=str(table.cell(segment, "text") or ""),
    )


def _labels(table: Table, segment: str) -> dict[str, Any]:
    """The labels of a segment that are whole and in their range."""
    labels: dict[str, Any] = {}
    if (sentiment := _within(table.cell(segment, "sentiment"), SENTIMENT)) is not None:
        labels["sentiment"] = sentiment
    emotions = [_within(table.cell(segment, name), EMOTION) for name in EMOTIONS if name in table.columns]
    if emotions and None not in emotions:
        labels["emotion"] = emotions
    return labels


def _within(cell: Any, borders: tuple[int, int]) -> float | None:
    value = number(cell)
    return value if value is not None and borders[0] <= value <= borders[1] else None


def _gaps(table: Table, files: list[str], sources: list[Source]) -> tuple[Gap, Gap]:
    """Segments without a video, and videos without a segment.

    A whole video of which each segment is a file of its own fits well.
    """
    known = table.segments.keys() | {table.video(segment) for segment in table.segments}
    missing = sorted(table.segments.keys() - {source.name for source in sources})
    used = {source.path for source in sources}
    strangers = sorted(file for file in files if file not in used and not known.intersection(_keys(file)))
    return (
        Gap("max_missing", "labelled segments (has|have) no video", tuple(missing), len(table.segments)),
        Gap("max_unlabelled", "videos (has|have) no label and (is|are) left out", tuple(strangers), len(files)),
    )


def _file_findings(table: Table, files: list[str], sources: list[Source], gaps: tuple[Gap, Gap]) -> list[str]:
    """The gaps, names of both that differ in case alone, and videos that another one of the same name stands for."""
    missing, strangers = gaps
    used = {source.path for source in sources}
    taken = {source.name for source in sources} | {source.identity for source in sources if source.span}
    again = [file for file in files if file not in used and taken.intersection(_keys(file))]
    wanted = {*missing.names, *(table.video(segment) for segment in missing.names)}
    alike = other_case(wanted, (key for file in strangers.names for key in _keys(file)))
    return [
        *gap_finding(KIND, missing),
        *finding(KIND, alike, "{n} (name differs|names differ) from a video's in upper and lower case alone"),
        *finding(KIND, again, "{n} (video has|videos have) the name of another one and (is|are) left out"),
        *gap_finding(KIND, strangers),
    ]


def _label_findings(table: Table) -> list[str]:
    """Columns that are missing or not known, and labels that are there and do not fit."""
    parts = {"sentiment": ("sentiment",), "emotion": tuple(EMOTIONS)}
    lacking = [part for names in parts.values() for part in names if part not in table.columns]
    lines = [
        *finding(KIND, lacking, f"{table.path} has no column for {{n}} of {1 + len(EMOTIONS)} labels"),
        *finding(KIND, table.others, f"{{n}} (column|columns) of {table.path} (is|are) not known and left out"),
    ]
    for label, (low, high) in {"sentiment": SENTIMENT, "emotion": EMOTION}.items():
        said = [one for one in table.segments if any(table.cell(one, part) is not None for part in parts[label])]
        wrong = [segment for segment in said if label not in _labels(table, segment)]
        what = f"no {label} label: not all a number from {low} to {high}"
        lines += finding(KIND, wrong, f"{{n}} of {len(table.segments):,} labelled segments (has|have) {what}")
    return lines


def _schema(columns: Mapping[str, str]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if "sentiment" in columns:
        schema["sentiment"] = {"type": "real", "range": [*SENTIMENT]}
    if names := [name for name in EMOTIONS if name in columns]:
        schema["emotion"] = {"type": "real", "range": [*EMOTION], "names": names}
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
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(f"corpus.splits: {where} can't be read ({error})") from None
    if not folds:
        raise UsageError(f"corpus.splits: {where} defines none of {', '.join(_FOLDS)}")
    return by_name(folds, line_entry, where)
