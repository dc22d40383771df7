"""Split lists: which sources are for training, validation and test. A user's lists win over everything."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pipeline.errors import UsageError
from pipeline.storage import NotFound
from pipeline.text import plural
from preprocess.corpora.base import Gap, Listing, Media, Source, Split
from preprocess.corpora.documents import is_folder_named, parse_json, read_document, read_json, shown, text_lines
from preprocess.corpora.findings import finding, named_once, other_case

NAMES: Mapping[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""What the splits are called in lists."""

Entries = Callable[[Any], Iterable[str]]
"""Gives the names that one entry of a list stands for."""

ORDER: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Official:
    """Sizes of the official corpus: videos of each split, and of all of them, None where nobody says."""

    splits: Mapping[Split, int]
    total: int | None = None
    about: bool = False


def split_of(cell: Any, where: str) -> Split | None:
    """The split that a cell of a table names, None where it is empty.

    Raises:
        UsageError: it is none; `where` names the row.
    """
    if cell is None:
        return None
    split = NAMES.get(str(cell).lower())
    if split is None:
        raise UsageError(f"{where} is of split {cell}: choose from {', '.join(NAMES)}")
    return split


def line_entry(entry: Any) -> Iterable[str]:
    """A line of a list as it is."""
    return (str(entry),)


def read_lists(
    media: Media, where: str, usual: Sequence[str] = (), entries: Entries = line_entry
) -> dict[str, Split] | None:
    """The split of each listed name, None where there are no lists.

    Args:
        media: the corpus.
        where: `corpus.splits`: a folder of lists (train, val, test; .txt with an entry a line, or .json with a list of
            entries), or one .json file with a list of entries for each split.
        usual: folders of the corpus where lists are looked for when `where` is empty; "" is the corpus itself.
        entries: gives the names of an entry.

    Raises:
        UsageError: there are no lists at `where`, or a name is in two of them.
    """
    if where.endswith(".json") and not is_folder_named(media, where):
        return by_name(_one_file(media, where), entries, where)
    for folder in [where] if where else usual:
        found = _folder_lists(media, folder)
        if found:
            return by_name(found, entries, folder or media.url)
    if where:
        what = "holds no train, val or test list" if is_folder_named(media, where) else "is no folder of lists"
        raise UsageError(
            f"corpus.splits: {shown(media, where)} {what}: give a folder with train, val, test (.txt or .json), "
            "or one .json file of them"
        )
    return None


def by_name(lists: Mapping[Split, Iterable[Any]], entries: Entries, where: str) -> dict[str, Split]:
    """The split of each name of some lists.

    Raises:
        UsageError: all are empty, an entry is no name, or a name is in two of them.
    """
    if not any(lists.values()):
        raise UsageError(f"corpus.splits: the lists of {where} are empty: fill them, or remove them")
    splits: dict[str, Split] = {}
    for split, listed in lists.items():
        for entry in listed:
            if not isinstance(entry, str | int | list):
                raise UsageError(f"corpus.splits: {where} lists {entry!r}, which names no video: mend it")
            for name in entries(entry):
                if splits.setdefault(name, split) != split:
                    raise UsageError(
                        f"corpus.splits: {name} is both in the {splits[name]} and the {split} list of {where}"
                    )
    return splits


def assign(
    kind: str,
    listing: Listing,
    lists: Mapping[str, Split] | None,
    keys: Callable[[Source], Iterable[str]],
    official: Official | None = None,
) -> Listing:
    """Puts sources into the splits of lists; what is in no list, or has the name of another, is left out.

    What does not fit is added to the findings.

    Args:
        kind: of the corpus, for the findings.
        listing: all sources of the corpus.
        lists: the split of each listed name; None changes nothing.
        keys: the names that a source may be listed under; the first that is counts.
        official: sizes to compare with.
    """
    sources, findings = named_once(kind, listing.sources)
    gaps = listing.gaps
    if lists is not None:
        sources, lines, absent = _assigned(kind, sources, lists, keys)
        findings += lines + _shared_people(kind, sources)
        what = "entries of split lists (is|are) not in the corpus"
        gaps = (*gaps, Gap("max_missing", what, tuple(sorted(absent)), len(lists)))
    if official:
        findings += _sizes(kind, sources, official, lists is not None)
    return replace(listing, sources=sources, findings=(*listing.findings, *findings), gaps=gaps)


def _assigned(
    kind: str, sources: tuple[Source, ...], lists: Mapping[str, Split], keys: Callable[[Source], Iterable[str]]
) -> tuple[tuple[Source, ...], list[str], list[str]]:
    """Listed sources, lines for what does not fit, and the entries without a source."""
    used: set[str] = set()
    kept, unlisted = [], []
    for source in sources:
        names = [name for name in keys(source) if name in lists]
        used.update(names)
        if names:
            kept.append(replace(source, split=lists[names[0]]))
        else:
            unlisted.append(source)
    sizes = Counter(lists.values())
    missing = {split: [name for name, at in lists.items() if at == split and name not in used] for split in ORDER}
    findings = [
        line
        for split, names in missing.items()
        for line in finding(kind, names, f"{{n}} of {sizes[split]:,} listed {split} entries (is|are) not in the corpus")
    ]
    absent = [*chain.from_iterable(missing.values())]
    alike = other_case(absent, (name for source in unlisted for name in keys(source)))
    findings += finding(kind, alike, "{n} of them (differs|differ) from a video in upper and lower case alone")
    findings += finding(
        kind,
        (source.name for source in unlisted),
        f"{{n}} of {len(sources):,} videos (is|are) in no split list and left out",
    )
    return tuple(kept), findings, absent


def _shared_people(kind: str, sources: Iterable[Source]) -> list[str]:
    places: defaultdict[str, set[str]] = defaultdict(set)
    for source in sources:
        places[source.identity].add(source.split or "")
    shared = [identity for identity, splits in places.items() if len(splits) > 1]
    return finding(kind, shared, "{n} (identity is|identities are) in more than one split, as the lists say")


def _sizes(kind: str, sources: Sequence[Source], official: Official, listed: bool) -> list[str]:
    about = "about " if official.about else ""
    if not listed:
        total = official.total or sum(official.splits.values())
        found = plural(len(sources), "video")
        return [] if len(sources) == total else [f"{kind}: {found}, the official corpus has {total:,}"]
    counts = Counter(source.split for source in sources)
    return [
        f"{kind}: {plural(counts[split], f'{split} video')}, the official split has {about}{size:,}"
        for split, size in official.splits.items()
        if counts[split] != size
    ]


def _one_file(media: Media, path: str) -> dict[Split, list[Any]]:
    content = read_json(media, path, "corpus.splits")
    if not isinstance(content, dict) or not content.keys() <= NAMES.keys():
        raise UsageError(f"corpus.splits: {path} should hold the lists train, val and test, and nothing else")
    found: dict[Split, list[Any]] = {}
    for name, listed in content.items():
        _put(found, NAMES[name], _checked_list(listed, f"{name} of {path}"), path)
    return found


def _folder_lists(media: Media, folder: str) -> dict[Split, list[Any]]:
    found: dict[Split, list[Any]] = {}
    for name, split in NAMES.items():
        for suffix in (".txt", ".json"):
            path = f"{folder.rstrip('/')}/{name}{suffix}" if folder else name + suffix
            try:
                data = read_document(media, path, "corpus.splits")
            except NotFound:
                continue
            entries = text_lines(data, path) if suffix == ".txt" else _checked_list(parse_json(data, path), path)
            _put(found, split, entries, folder or media.url)
    return found


def _put(found: dict[Split, list[Any]], split: Split, entries: list[Any], where: str) -> None:
    if split in found:
        raise UsageError(f"corpus.splits: {where} has two {split} lists: keep one")
    found[split] = entries


def _checked_list(entries: object, where: str) -> list[Any]:
    if not isinstance(entries, list):
        raise UsageError(f"corpus.splits: {where} should hold a list")
    return entries
