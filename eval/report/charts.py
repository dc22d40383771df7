"""Line charts as inline SVG; colours come from the page's style sheet, so they follow its light and dark themes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34
MOST_POINTS = 1000
"""Of a line: several to each pixel of its width."""


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: what it shows.
        points: (step or another number, value).
        colour: number of its colour.
        dashed: lines of held-out measurements are.
        marked: a dot on every point, not only on the last one.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False
    marked: bool = False

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> Sequence[tuple[float, float]]:
    """At most `most` (4 or more) of the points of a line: its ends, and the lowest and highest of equal stretches."""
    if len(points) <= most:
        return points
    inner, stretches = len(points) - 2, (most - 2) // 2
    edges = [1 + inner * index // stretches for index in range(stretches + 1)]
    kept = {0, len(points) - 1}
    for first, end in pairwise(edges):
        kept |= {choose(range(first, end), key=lambda index: points[index][1]) for choose in (min, max)}
    return [points[index] for index in sorted(kept)]


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at or below `low` to at or above `high`.

    What differs by less than a billionth of its size is told as one value: no label could tell it apart.
    """
    size = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * size else size or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))
    return [round(step * index, digits) for index in range(first, max(last, first + 1) + 1)]


def line_chart(title: str, series: Sequence[Series], x_label: str = "step") -> Markup:
    """One chart of all series against the training step, or what else `x_label` names.

    Raises:
        ValueError: no series has a finite point.
    """
    drawn = [(one, points) for one in series if (points := thinned(one.finite))]
    if not drawn:
        raise ValueError(f"chart {title!r} has nothing to draw")
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    low, high = min(ys), max(ys)
    # A cut axis makes small changes look large: only where zero is far away.
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(0.0 if 0 < low < high / 2 else low, high)
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1], x_label)
    parts = [frame.axes(x_ticks, y_ticks)] + [frame.line(one, points) for one, points in drawn]
    label = Markup('role="img" aria-label="{}"').format(title)
    return Markup('<svg viewBox="0 0 {} {}" {}>{}</svg>').format(_WIDTH, _HEIGHT, label, Markup("").join(parts))


def short_number(value: float) -> str:
    """A tick label of at most seven characters or so."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}"


@dataclass(frozen=True)
class _Frame:
    """Maps data to pixels."""

    left: float
    right: float
    low: float
    high: float
    x_label: str

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Markup:
        parts = [
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, _WIDTH - _RIGHT, self.y(tick), self.y(tick)
            )
            + Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 6, self.y(tick) + 4, short_number(tick)
            )
            for tick in y_ticks
        ]
        parts += [
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                self.x(tick), _HEIGHT - _BOTTOM + 16, short_number(tick)
            )
            for tick in x_ticks
        ]
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, _HEIGHT - 3, self.x_label)
        )
        return Markup("").join(parts)

    def line(self, series: Series, points: Sequence[tuple[float, float]]) -> Markup:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        kind = Markup('class="line c{}{}"').format(series.colour, " dashed" if series.dashed else "")
        dot = Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {} at {} {}</title></circle>')
        dots = [
            dot.format(series.colour, self.x(x), self.y(y), series.name, short_number(y), self.x_label, x)
            for x, y in (points if series.marked else points[-1:])
        ]
        return Markup('<polyline {} points="{}"/>').format(kind, path) + Markup("").join(dots)
