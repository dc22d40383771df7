"""A CSV or Parquet list of videos anywhere: paths, s3:// and http(s):// URLs, with further columns as labels.

What is stored of a URL lacks its query, which may be a signature: to open a video, its row is looked up by name.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Any

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Listing, Media, Source
from preprocess.corpora.documents import Row, number, plain, read_table
from preprocess.corpora.findings import finding
from preprocess.corpora.media import open_folder
from preprocess.corpora.places import Places
from preprocess.corpora.splits import assign, read_lists, split_of
from preprocess.corpora.web import bare
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
    _reading: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def url(self) -> str:
        """Path or URL of the list."""
        return f"{self.home.url.rstrip('/')}/{self.file}"

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the video of each row lies, by the row's name."""
        with self._reading:  # many threads may ask at once: one of them reads the list
            return self._addresses

    @cached_property
    def _addresses(self) -> Mapping[str, str]:
        return {name: entry.address for name, entry in self.entries().items()}

    def entries(self) -> Mapping[str, Entry]:
        """The rows by name; read each time, since they take much memory.

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
        return (name for name in sorted(self.addresses) if name.startswith(under))

    def read(self, path: str) -> bytes:
        """A small file beside the list."""
        return self.home.read(path)

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder of this name beside the list."""
        return self.home.has_folder(path)

    def located(self, source: Source) -> Source:
        """The source with the whole address of its row in `path`, which may hold a signature: it is never stored.

        Raises:
            BadSource: the list has no such row any more.
        """
        address = self.addresses.get(source.name)
        if address is None:
            raise BadSource("unreadable", f"no row of {self.url} has this name any more")
        return replace(source, path=address)

    def open(self, source: Source) -> AbstractContextManager[Path]:
        """The video of the row with the source's name."""
        return Places(self.home).open(self.located(source))

    def probe(self, source: Source) -> VideoInfo:
        """Reads the header where the video lies."""
        return Places(self.home).probe(self.located(source))

    def measure(self, source: Source, halt: Event) -> float:
        """Reads the video where it lies."""
        return Places(self.home).measure(self.located(source), halt)


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
    entries = media.entries()
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


def _one(rows: list[Row], names: tuple[str, ...], url: str, needed: bool = True) -> str:
    """The one column of several names that the list has; empty when there is none and none is needed."""
    found = [name for name in names if name in rows[0]]
    if len(found) > 1 or (needed and not found):
        raise UsageError(f"{url} should have one column {' or '.join(names)}, it has {', '.join(rows[0])}")
    return found[0] if found else ""


def _name(row: Row, column: str, address: str) -> str:
    if column and row[column] is not None:
        return _unsigned(plain(row[column]))
    name = _unsigned(address)
    if row.get("start") is not None:
        name += f"#{row['start']}-{row.get('end')}"
    return name


def _unsigned(text: str) -> str:
    """A text that is stored: a URL without its query, which may be a signature."""
    return bare(text) if "://" in text else text


def _source(entry: Entry, schema: Mapping[str, Any], rate: float, url: str) -> Source:
    row = entry.row
    return Source(
        name=entry.name,
        identity=_unsigned(plain(row.get("identity"))) or entry.name,
        path=_unsigned(entry.address),
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
