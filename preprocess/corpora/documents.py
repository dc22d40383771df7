"""Reads the lists and tables that come with a corpus, or lie elsewhere."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import UsageError
from pipeline.storage import NotFound
from preprocess.corpora.base import Media
from preprocess.corpora.media import open_folder

Row = Mapping[str, Any]
"""Cells of a row by the names of all columns; text from CSV, typed values from Parquet and JSON, None where empty."""


def read_document(media: Media, path: str) -> bytes:
    """A small file, by a path relative to the corpus, an absolute path or an s3:// URL.

    Raises:
        NotFound: there is no such file.
        MarlinError: it can't be read.
    """
    if not path.startswith(("/", "s3://", "file://")):
        return media.read(path)
    folder, _, name = path.removeprefix("file://").rpartition("/")
    try:
        place = open_folder(folder or "/")
    except UsageError:
        raise NotFound(f"{path}: no such file") from None
    return place.read(name)


def read_named(media: Media, path: str, key: str) -> bytes:
    """A file that the configuration names, or that must be there; `key` is its place in the configuration.

    Raises:
        UsageError: there is no such file.
    """
    try:
        return read_document(media, path)
    except NotFound:
        where = path if path[:1] == "/" or "://" in path else f"{path} in {media.url}"
        raise UsageError(f"there is no {where}: put it there, or set {key} to its place") from None


def read_json(media: Media, path: str, key: str) -> Any:
    """The value of a JSON file that the configuration names.

    Raises:
        UsageError: there is no such file, or it is no JSON.
    """
    return parse_json(read_named(media, path, key), path)


def parse_json(data: bytes, path: str) -> Any:
    """The value of a JSON document. Raises `UsageError` when it is none."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}): mend it") from None


def text_lines(data: bytes, path: str) -> list[str]:
    """The lines of a text file without spaces around them and without empty ones. Raises `UsageError`: no UTF-8."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: save it as such") from None
    return [line.strip() for line in lines if line.strip()]


def read_table(media: Media, path: str, key: str) -> list[Row]:
    """The rows of a table: .csv, .tsv, .parquet, or .json with a list of objects.

    Raises:
        UsageError: there is no such file, or it is no such table.
    """
    data = read_named(media, path, key)
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".parquet":
        rows = _parquet_rows(data, path)
    elif suffix == ".json":
        rows = parse_json(data, path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path} should hold a list of objects, one a row")
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(data, path, "\t" if suffix == ".tsv" else ",")
    else:
        raise UsageError(f"{key}: {path} is no table: give a .csv, .tsv, .json or .parquet file")
    if not rows:
        raise UsageError(f"{path} has no rows")
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


def column(rows: list[Row], *names: str) -> str | None:
    """Which of several names a table uses for a column; None where it has no such column."""
    return next((name for name in names if name in rows[0]), None)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def _csv_rows(data: bytes, path: str, delimiter: str) -> list[dict[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: save it as such") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
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
        raise UsageError(f"{path} is no Parquet file ({str(error).splitlines()[0]}): mend it") from None
    return rows
