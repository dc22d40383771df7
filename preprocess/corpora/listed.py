"""A CSV or Parquet list of videos anywhere: paths, s3:// and http(s):// URLs, with further columns as labels.

Rows are looked up by name, also by the workers: what is stored of a URL lacks its query, which may be a signature.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Listing, Media, Opener, Source
from preprocess.corpora.documents import Row, number, plain, read_table
from preprocess.corpora.findings import finding
from preprocess.corpora.media import LocalMedia, open_folder
from preprocess.corpora.splits import assign, read_lists, split_of
from preprocess.corpora.web import WebMedia, bare
from preprocess.decode.video import Span, VideoInfo
from preprocess.quarantine import BadSource

FRAME_RATE = 25.0
"""Of folders of frame images, unless `corpus.frame_rate` says otherwise."""

MOST_CLASSES = 1000
"""A text column with more values names things, not classes."""

_ADDRESS = ("url", "path", "video")
_NAME = ("id", "name")
_KNOWN = (*_ADDRESS, *_NAME, "identity", "split", "start", "end", "text")


@dataclass(frozen=True)
class Entry:
    """A row of the list: where its video lies, and the rest of it."""

    name: str
    address: str
    row: Row


@dataclass(frozen=True)
class ListMedia:
    """The videos of a list.

    Attributes:
        home: the folder that the list lies in; relative paths begin there.
        file: name of the list.
    """

    home: Media
    file: str

    @property
    def url(self) -> str:
        """Path or URL of the list."""
        return f"{self.home.url.rstrip('/')}/{self.file}"

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """The rows by name.

        Raises:
            UsageError: the list can't be read, or two rows have one name.
        """
        rows = read_table(self.home, self.file, "corpus.path")
        address, name = _one(rows, _ADDRESS, self.url), _one(rows, _NAME, self.url, needed=False)
        entries: dict[str, Entry] = {}
        first = 2 if self.file.lower().endswith((".csv", ".tsv")) else 1  # the header is a row there
        for place, row in enumerate(rows, first):
            if row[address] is None:
                raise UsageError(f"{self.url}, row {place} has no {address}")
            entry = Entry(_name(row, name, str(row[address])), str(row[address]), row)
            if entries.setdefault(entry.name, entry) is not entry:
                raise UsageError(
                    f"{self.url}, row {place}: {entry.name} is there twice: give each row its own in a column id"
                )
        return entries

    def files(self, under: str = "") -> Iterator[str]:
        """Names of all rows."""
        return (name for name in sorted(self.entries) if name.startswith(under))

    def read(self, path: str) -> bytes:
        """A small file beside the list."""
        return self.home.read(path)

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder of this name beside the list."""
        return self.home.has_folder(path)

    def open(self, source: Source) -> AbstractContextManager[Path]:
        """The video of the row with the source's name."""
        opener, there = self._place(source)
        return opener.open(there)

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header where the video lies."""
        opener, there = self._place(source)
        return opener.probe(there)

    def _place(self, source: Source) -> tuple[Opener, Source]:
        entry = self.entries.get(source.name)
        if entry is None:
            raise BadSource("unreadable", f"no row of {self.url} has this name any more")
        scheme, separator, rest = entry.address.partition("://")
        if not separator:
            absolute = entry.address.startswith("/")
            return (LocalMedia(Path("/")) if absolute else self.home), replace(source, path=entry.address)
        if scheme in ("http", "https"):
            return WebMedia(), replace(source, path=entry.address)
        bucket, _, key = rest.partition("/")
        if scheme == "s3" and bucket and key:
            return _bucket(bucket), replace(source, path=key)
        if scheme == "file" and rest.startswith("/"):
            return LocalMedia(Path("/")), replace(source, path=rest)
        raise BadSource("unreadable", f"its address begins with {scheme}://: use a path, s3://, http:// or https://")


def open_list(path: str) -> ListMedia:
    """The list at a path, file:// or s3:// URL.

    Raises:
        UsageError: nothing is given, or there is no such folder.
    """
    if path.startswith(("http://", "https://")):
        raise UsageError("corpus.path: a list is read from a path or s3:// URL only: download it first")
    folder, separator, name = path.rpartition("/")
    if not name:
        raise UsageError("corpus.path: set it to the .csv or .parquet list of a corpus of kind 'list'")
    return ListMedia(open_folder(folder or (separator or ".")), name)


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """A source for each row. Split lists win over the column `split`; rows in no split are left out then."""
    if not isinstance(media, ListMedia):
        raise TypeError("a list is opened by open_list")
    entries = media.entries
    rows = [entry.row for entry in entries.values()]
    schema, named = _schema(rows)
    rate = cfg.frame_rate or FRAME_RATE
    sources = tuple(_source(entry, schema, rate, media.url) for _, entry in sorted(entries.items()))
    findings = finding(
        "list",
        named,
        "{n} (column is no label: it has|columns are no labels: they have) no name, too many texts, or URLs",
    )
    lists = read_lists(media, cfg.splits)
    if lists is None and "split" in rows[0]:
        lists = {source.name: source.split for source in sources if source.split}
    return assign(
        "list", Listing(sources, schema, tuple(findings)), lists or None, lambda source: (source.name, source.identity)
    )


@lru_cache(maxsize=8)
def _bucket(bucket: str) -> Media:
    return open_folder(f"s3://{bucket}")


def _one(rows: list[Row], names: tuple[str, ...], url: str, needed: bool = True) -> str:
    """The one column of several names that the list has; empty when there is none and none is needed."""
    found = [name for name in names if name in rows[0]]
    if len(found) > 1 or (needed and not found):
        raise UsageError(f"{url} should have one column {' or '.join(names)}, it has {', '.join(rows[0])}")
    return found[0] if found else ""


def _name(row: Row, column: str, address: str) -> str:
    if column and row[column] is not None:
        return plain(row[column])
    name = bare(address) if "://" in address else address
    if row.get("start") is not None:
        name += f"#{row['start']}-{row.get('end')}"
    return name


def _source(entry: Entry, schema: Mapping[str, Any], rate: float, url: str) -> Source:
    row = entry.row
    path = bare(entry.address) if "://" in entry.address else entry.address
    return Source(
        name=entry.name,
        identity=plain(row.get("identity")) or entry.name,
        path=path,
        span=_span(entry, url),
        split=split_of(row.get("split"), f"{url}: {entry.name}"),
        labels={name: _label(row[name], kind) for name, kind in schema.items() if row.get(name) is not None},
        text=str(row.get("text") or ""),
        frame_rate=rate,
    )


def _span(entry: Entry, url: str) -> Span | None:
    cells = entry.row.get("start"), entry.row.get("end")
    if cells == (None, None):
        return None
    start, end = number(cells[0]), number(cells[1])
    if start is None or end is None or not 0 <= start < end:
        raise UsageError(f"{url}: {entry.name} needs a start and a later end in seconds, or neither")
    return start, end


def _schema(rows: list[Row]) -> tuple[dict[str, Any], list[str]]:
    """Types of the columns that are labels, and the columns that look like none."""
    schema: dict[str, Any] = {}
    others = []
    for name in rows[0]:
        cells = [row[name] for row in rows if row.get(name) is not None]
        if name in _KNOWN or not cells:
            continue
        if not name.strip():  # the index of a table that pandas wrote
            others.append("the one without a name")
            continue
        numbers = [value for cell in cells if (value := number(cell)) is not None]
        classes = sorted({_class(cell) for cell in cells})
        if len(numbers) == len(cells) and not set(classes) <= {"0", "1"}:
            schema[name] = {"type": "real", "range": [min(numbers), max(numbers)]}
        elif len(classes) > MOST_CLASSES or any("://" in text for text in classes):
            others.append(name)
        else:
            schema[name] = {"type": "class", "names": classes}
    return schema, others


def _class(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, bool | float) and cell in (0, 1) else str(cell)


def _label(cell: Any, kind: Mapping[str, Any]) -> Any:
    return number(cell) if kind["type"] == "real" else _class(cell)
