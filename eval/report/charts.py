"""Line charts as inline SVG; colours come from the page's style sheet, so they follow its light and dark themes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34


@dataclass(frozen=True)
class Series:
    """A line: its name, points (step, value), and the number of its colour; dashed lines are held-out measurements."""

    name: str
    points: Sequence[tuple[int, float]]
    colour: int = 0
    dashed: bool = False


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at or below `low` to at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, max(last, first + 1) + 1)]


def line_chart(title: str, series: Sequence[Series]) -> Markup:
    """One chart of all series against the training step.

    Raises:
        ValueError: no series has a finite point.
    """
    drawn = [(one, [(x, y) for x, y in one.points if math.isfinite(y)]) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        raise ValueError(f"chart {title!r} has nothing to draw")
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    low, high = min(ys), max(ys)
    # A cut axis makes small changes look large: only where zero is far away.
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(0.0 if 0 < low < high / 2 else low, high)
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
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
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">step</text>').format(middle, _HEIGHT - 3))
        return Markup("").join(parts)

    def line(self, series: Series, points: Sequence[tuple[int, float]]) -> Markup:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        kind = Markup('class="line c{}{}"').format(series.colour, " dashed" if series.dashed else "")
        x, y = points[-1]
        end = Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {} at step {}</title></circle>')
        dot = end.format(series.colour, self.x(x), self.y(y), series.name, short_number(y), x)
        return Markup('<polyline {} points="{}"/>').format(kind, path) + dot
