"""Near-duplicates: samples that show the same recording again, encoded, scaled or cut in another way.

Faces of one person in one room look alike in every recording, so fingerprints that are near prove nothing. A copy also
*moves* alike: two tracks are copies when, at one offset in time, their fingerprints change in the same bits at the same
moments. docs/faces.md has the measurements behind the numbers.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from preprocess.faces.fingerprint import BITS, STEP, places

LEAST = 8
"""Fingerprints that two tracks must have in common."""
DIFFERING = 0.25
"""Share of bits in which copies may differ."""
IN_STEP = 0.3
"""Correlation of the bits' changes in time that copies have at least."""

# Pairs worth comparing agree in all of 32 bits somewhere; eight such sets of bits cover all 144.
_TABLES, _KEY_BITS = 8, 32
_NEIGHBOURS = 2
_STRETCHES = 4
_OFFSETS = 8
_CHUNK = 1 << 18

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """What a sample brings to the comparison.

    Attributes:
        key: of the sample.
        track: name of its track, unique in the dataset; samples of one track are no copies of each other.
        start: its first frame, counted as in its unit's manifest.
        phash: its fingerprints as hexadecimal digits, '' where there is none; see `fingerprint.places`.
    """

    key: str
    track: str
    start: int
    phash: Sequence[str]


def near_duplicates(entries: Iterable[Entry]) -> dict[str, str]:
    """Samples to leave out: key of each copy, and the key of the earlier sample that is kept for it.

    Args:
        entries: all samples in the order in which the first is kept. Memory is about 2 kB a sample.
    """
    prints = _Prints(entries)
    copies: dict[str, str] = {}
    for first, second, offsets in _candidates(prints):
        for offset in offsets:
            pairs = _aligned(prints, first, second, offset)
            if len(pairs):
                for copy, kept in _covered(prints, pairs):
                    copies.setdefault(copy, copies.get(kept, kept))
                break
    return copies


class _Prints:
    """Fingerprints of all samples, those of a track together and in the order of time."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.keys: list[str] = []
        named: dict[str, int] = {}
        bits = bytearray()
        # Arrays, not lists: there are tens of millions of fingerprints.
        track, place, entry = array("q"), array("q"), array("q")
        for number, item in enumerate(entries):
            self.keys.append(item.key)
            at = places(item.start, STEP * len(item.phash))
            for index, digits in zip(at, item.phash, strict=True):
                if digits:
                    bits += bytes.fromhex(digits)
                    track.append(named.setdefault(item.track, len(named)))
                    place.append(index // STEP)
                    entry.append(number)
        order = np.lexsort((_integers(place), _integers(track)))
        self.bits: NDArray[np.uint8] = np.frombuffer(bytes(bits), np.uint8).reshape(-1, BITS // 8)[order]
        self.track, self.place, self.entry = (_integers(numbers)[order] for numbers in (track, place, entry))
        self.tracks = len(named)

    @cached_property
    def borders(self) -> Integers:
        """First row of each track, and the number of rows."""
        return np.searchsorted(self.track, np.arange(self.tracks + 1)).astype(np.int64)

    @cached_property
    def per_entry(self) -> Integers:
        """How many fingerprints each sample has."""
        return np.bincount(self.entry, minlength=len(self.keys)).astype(np.int64)

    def key_of(self, table: int) -> NDArray[np.uint32]:
        """32 bits of each row, other ones for each table."""
        chosen = 5 * (np.arange(_KEY_BITS) + table * BITS // _TABLES) % BITS
        keys = np.empty((len(self.bits), _KEY_BITS // 8), np.uint8)
        for row in range(0, len(keys), _CHUNK):
            rows = slice(row, row + _CHUNK)
            keys[rows] = np.packbits(np.unpackbits(self.bits[rows], axis=1)[:, chosen], axis=1)
        return keys.view(np.uint32)[:, 0]


def _integers(numbers: "array[int]") -> Integers:
    return np.frombuffer(numbers, np.int64)


def _candidates(prints: _Prints) -> Iterator[tuple[int, int, list[int]]]:
    """Pairs of tracks, the later one second and in rising order, with the offsets most of their matches speak for."""
    if not len(prints.bits):
        return
    matches = np.concatenate([_matches(prints, table) for table in range(_TABLES)])
    found, votes = np.unique(matches, axis=0, return_counts=True)
    order = np.lexsort((found[:, 2], -votes, found[:, 0], found[:, 1]))
    found = found[order]
    borders = np.r_[True, (found[1:, :2] != found[:-1, :2]).any(axis=1), True]
    for row, end in pairwise(np.flatnonzero(borders) if len(found) else ()):
        first, second = found[row, :2]
        yield int(first), int(second), found[row : min(end, row + _OFFSETS), 2].tolist()


def _matches(prints: _Prints, table: int) -> Integers:
    """Rows (first track, second track, offset) of fingerprints that agree in a table's bits."""
    key = prints.key_of(table)
    order = np.lexsort((prints.place, prints.track, key))
    order = order[prints.bits[order].any(axis=1)]  # black pictures all agree
    key, track, place = key[order], prints.track[order], prints.place[order]
    new = np.r_[True, (key[1:] != key[:-1]) | (track[1:] != track[:-1])][: len(key)]
    # A still face has one key for long: of each stretch the first row counts, and of each track a few stretches.
    began = np.flatnonzero(new | np.r_[True, place[1:] != place[:-1] + 1][: len(key)])
    key, track, place, new = key[began], track[began], place[began], new[began]
    first = np.flatnonzero(new)
    rank = np.arange(len(new)) - first[np.cumsum(new) - 1]
    stretches = np.full((len(first), _STRETCHES), -1, np.int64)
    few = rank < _STRETCHES
    stretches[(np.cumsum(new) - 1)[few], rank[few]] = place[few]
    key, track = key[first], track[first]
    found = [np.zeros((0, 3), np.int64)]
    for back in range(1, _NEIGHBOURS + 1):
        same = np.flatnonzero(key[back:] == key[:-back])
        for a, b in product(range(_STRETCHES), repeat=2):
            earlier, later = stretches[same, a], stretches[same + back, b]
            both = (earlier >= 0) & (later >= 0)
            pairs = same[both]
            found.append(np.stack([track[pairs], track[pairs + back], (later - earlier)[both]], axis=1))
    return np.concatenate(found)


def _aligned(prints: _Prints, first: int, second: int, offset: int) -> Integers:
    """Pairs of rows (n, 2) that show the same moments if the second track is a copy at an offset; else none."""
    a, b = (slice(*prints.borders[track : track + 2]) for track in (first, second))
    _, left, right = np.intersect1d(prints.place[a], prints.place[b] - offset, assume_unique=True, return_indices=True)
    pairs = np.stack([left + a.start, right + b.start], axis=1).astype(np.int64)
    x, y = (np.unpackbits(prints.bits[rows], axis=1).astype(np.float32) for rows in pairs.T)
    return pairs if len(pairs) >= LEAST and _same(x, y) else pairs[:0]


def _same(x: NDArray[np.float32], y: NDArray[np.float32]) -> bool:
    """Whether two sequences of fingerprints (n, 144) are of one recording."""
    differing = float(np.abs(x - y).mean())
    if differing == 0 or differing > DIFFERING:
        return differing == 0
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return scale > 0 and float((x * y).sum()) / scale >= IN_STEP


def _covered(prints: _Prints, pairs: Integers) -> Iterator[tuple[str, str]]:
    """Samples of the second track that lie in the common part by half or more, each with its sample of the first."""
    ours, theirs = prints.entry[pairs[:, 1]], prints.entry[pairs[:, 0]]
    for entry in np.unique(ours):
        of = theirs[ours == entry]
        if 2 * len(of) >= prints.per_entry[entry]:
            yield prints.keys[entry], prints.keys[int(np.bincount(of).argmax())]
