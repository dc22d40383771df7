"""Reads the lists and tables that come with a corpus, or lie elsewhere."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import UsageError
from pipeline.storage import NotFound
from preprocess.corpora.base import Media
from preprocess.corpora.media import open_folder

Row = Mapping[str, Any]
"""Cells of a row by the names of all columns; text from CSV, typed values from Parquet and JSON, None where empty."""


def read_document(media: Media, path: str, key: str) -> bytes:
    """A small file, by a path relative to the corpus, an absolute path or an s3:// URL.

    Args:
        media: the corpus.
        path: of the file.
        key: its place in the configuration.

    Raises:
        NotFound: there is no such file.
        UsageError: it is a folder, or empty.
        MarlinError: it can't be read.
    """
    place, name = _place(media, path)
    try:
        data = place.read(name)
    except NotFound:
        if place.has_folder(name):
            raise UsageError(
                f"{key}: {shown(media, path)} is a folder, a file is needed: name another, or move it"
            ) from None
        raise
    if not data.strip():
        raise UsageError(f"{key}: {shown(media, path)} is empty: write it again, or remove it")
    return data


def read_named(media: Media, path: str, key: str) -> bytes:
    """A file that the configuration names, or that must be there; `key` is its place in the configuration.

    Raises:
        UsageError: there is no such file, it is a folder, or empty.
        MarlinError: it can't be read.
    """
    try:
        return read_document(media, path, key)
    except NotFound:
        raise UsageError(f"there is no {shown(media, path)}: put it there, or set {key} to its place") from None


def is_folder_named(media: Media, path: str) -> bool:
    """Whether there is a folder at a path as `read_document` takes it."""
    try:
        place, name = _place(media, path)
    except NotFound:
        return False
    return place.has_folder(name)


def shown(media: Media, path: str) -> str:
    """A path as `read_document` takes it, for a message."""
    return path if _is_elsewhere(path) else f"{path} in {media.url}"


def _is_elsewhere(path: str) -> bool:
    return path.startswith(("/", "~", "s3://", "file://"))


def _place(media: Media, path: str) -> tuple[Media, str]:
    """Where a file lies, and its name there. Raises `NotFound` where there is no such folder."""
    if not _is_elsewhere(path):
        return media, path
    folder, _, name = path.removeprefix("file://").rstrip("/").rpartition("/")
    try:
        return open_folder(folder or "/"), name
    except UsageError:
        raise NotFound(f"{path}: no such file") from None


def read_json(media: Media, path: str, key: str) -> Any:
    """The value of a JSON file that the configuration names.

    Raises:
        UsageError: there is no such file, or it is no JSON.
    """
    return parse_json(read_named(media, path, key), shown(media, path))


def parse_json(data: bytes, path: str) -> Any:
    """The value of a JSON document. Raises `UsageError` when it is none, or has two fields of one name."""
    try:
        return json.loads(data, object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): mend it") from None


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two fields with one name the last would win in silence."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{name!r} is there twice in one object")
    return fields


def text_lines(data: bytes, path: str) -> list[str]:
    """The lines of a text file without spaces around them and without empty ones. Raises `UsageError`: no text."""
    return [line.strip() for line in _text(data, path).splitlines() if line.strip()]


def _text(data: bytes, path: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: save it as such") from None
    if "\0" in text:
        raise UsageError(f"{path} is not UTF-8 text but binary: save it as text")
    return text


def read_table(media: Media, path: str, key: str) -> list[Row]:
    """The rows of a table: .csv, .tsv, .parquet, or .json with a list of objects.

    Raises:
        UsageError: there is no such file, or it is no such table.
    """
    data, where = read_named(media, path, key), shown(media, path)
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".parquet":
        rows = _parquet_rows(data, where)
    elif suffix == ".json":
        rows = parse_json(data, where)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{where} should hold a list of objects, one a row")
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(data, where, "\t" if suffix == ".tsv" else ",")
    else:
        raise UsageError(f"{key}: {where} is no table: give a .csv, .tsv, .json or .parquet file")
    if not rows:
        raise UsageError(f"{where} has no rows")
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return [{name: _cell(row.get(name)) for name in names} for row in rows]


def number(value: Any) -> float | None:
    """A cell as a finite number, None where it is none."""
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def plain(value: Any) -> str:
    """A cell as text: whole numbers that pandas made floats (7.0) without their point, nothing where it is empty."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def column(rows: list[Row], *names: str) -> str | None:
    """Which of several names a table uses for a column; None where it has no such column."""
    return next((name for name in names if name in rows[0]), None)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def _csv_rows(data: bytes, path: str, delimiter: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(data, path), newline=""), delimiter=delimiter)
    rows = []
    try:
        header = reader.fieldnames or []
        for row in reader:
            if None in row:
                raise UsageError(f"{path}, line {reader.line_num} has more cells than the header has columns: mend it")
            rows.append(dict(row))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}: mend it") from None
    if len(set(header)) != len(header):
        raise UsageError(f"{path} has two columns of the same name: rename one")
    return rows


def _parquet_rows(data: bytes, path: str) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        why = str(error).splitlines()[0].rpartition("'<Buffer>': ")[2].rstrip(".")
        raise UsageError(f"{path} is no Parquet file ({why}): write it again") from None
    return rows
