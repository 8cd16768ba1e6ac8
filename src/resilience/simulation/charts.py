"""Charts as SVG: lines over an axis, legible in light and dark, by themselves or inside a page.

Lines differ by dash as well as by colour, so that a chart survives a printer and most eyes.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH: Final = 760
"""Pixels, of the whole picture."""

_LEFT, _RIGHT, _TOP, _GAP = 68, 16, 44, 66
_LEGEND_LINE = 20

STYLE: Final = """
  .page { fill: #ffffff } .ink { fill: #1f2430 } .soft { fill: #5b6472 } .grid { stroke: #dfe3e8 }
  .axis { stroke: #7b8494 } .shade { fill: #b45309; opacity: 0.13 } .shade-name { fill: #92400e }
  .c0 { stroke: #1d5fd1 } .c1 { stroke: #c2410c } .c2 { stroke: #15803d } .c3 { stroke: #7e22ce }
  .c4 { stroke: #64748b } .c5 { stroke: #be185d }
  .f0 { fill: #1d5fd1 } .f1 { fill: #c2410c } .f2 { fill: #15803d } .f3 { fill: #7e22ce }
  .f4 { fill: #64748b } .f5 { fill: #be185d }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14171c } .ink { fill: #e6e9ee } .soft { fill: #a3acba } .grid { stroke: #2b313a }
    .axis { stroke: #77818f } .shade { fill: #f59e0b; opacity: 0.18 } .shade-name { fill: #fbbf24 }
    .c0 { stroke: #6ea8fe } .c1 { stroke: #fb923c } .c2 { stroke: #4ade80 } .c3 { stroke: #c084fc }
    .c4 { stroke: #94a3b8 } .c5 { stroke: #f472b6 }
    .f0 { fill: #6ea8fe } .f1 { fill: #fb923c } .f2 { fill: #4ade80 } .f3 { fill: #c084fc }
    .f4 { fill: #94a3b8 } .f5 { fill: #f472b6 }
  }
"""

_COLOURS: Final = 6
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4")


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: For the legend; lines of one name in several panels look alike.
        points: Pairs of x and y, in order of x.
        dots: Whether to draw dots and no line between.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Shade:
    """A stretch of the x axis that is marked.

    Args:
        start: Where it begins.
        end: Where it ends.
        name: What it is.
    """

    start: float
    end: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Args:
        title: What is shown, with its unit.
        lines: What is drawn.
        x_label: What lies on the x axis, with its unit.
        most: The upper end of the y axis; what the lines need where left out.
        x_range: The ends of the x axis; those of the lines where left out.
        scale: `"linear"`, or `"log"` for a logarithmic y axis, from the least y above 0.
        x_scale: The same for the x axis.
        shades: What is marked.
        form: How a y is written at the axis.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = ""
    most: float | None = None
    x_range: tuple[float, float] | None = None
    scale: Literal["linear", "log"] = "linear"
    x_scale: Literal["linear", "log"] = "linear"
    shades: Sequence[Shade] = ()
    form: Callable[[float], str] = "{:,g}".format


def svg(title: str, panels: Sequence[Panel], *, height: int = 200) -> str:
    """Return a picture of `panels`, one below the other.

    Args:
        title: For the top, and for those who cannot see it.
        panels: What to draw.
        height: Pixels of each panel's axes.

    Raises:
        ValueError: There is nothing to draw.

    Example:
        >>> picture = svg("Delay", [Panel(title="seconds", lines=[Line("full", [(1, 0.1), (2, 0.2)])])])
        >>> picture.startswith("<svg"), "Delay" in picture
        (True, True)
    """
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    if not any(line.points for panel in panels for line in panel.lines):
        raise ValueError(f"{title!r}: there is no point to draw")
    legend, top = _legend(names)
    parts = [
        f'<text class="ink" x="{_LEFT}" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
        *legend,
    ]
    for panel in panels:
        parts += _panel(panel, names, top + 38, height)
        top += height + _GAP
    total = top + 6
    description = escape("; ".join(panel.title for panel in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" '
        f'height="{total}" role="img" font-family="system-ui, sans-serif" font-size="12">\n'
        f"<title>{escape(title)}</title>\n<desc>{description}</desc>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{total}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    """Return the drawing of the legend, and the y at which it ends."""
    parts: list[str] = []
    x, y = _LEFT, _TOP + 4
    for index, name in enumerate(names):
        width = 40 + 7 * len(name)
        if x + width > WIDTH - _RIGHT and x > _LEFT:
            x, y = _LEFT, y + _LEGEND_LINE
        parts.append(
            f'<line {_stroke(index)} x1="{x}" y1="{y}" x2="{x + 26}" y2="{y}"/>'
            f'<text class="ink" x="{x + 32}" y="{y + 4}">{escape(name)}</text>'
        )
        x += width + 10
    return parts, y


def _stroke(index: int) -> str:
    dash = _DASHES[index % len(_DASHES)]
    return f'class="c{index % _COLOURS}" fill="none" stroke-width="2" stroke-dasharray="{dash}"'


def _panel(panel: Panel, names: Sequence[str], top: float, height: float) -> list[str]:
    """Return the drawing of one panel, whose axes begin at y `top`."""
    points = [point for line in panel.lines for point in line.points]
    right, bottom = WIDTH - _RIGHT, top + height
    xs, ys = (list(one) for one in zip(*points, strict=True)) if points else ([0.0], [0.0])
    x_of, x_ticks = _axis(_x_ends(panel, xs), panel.x_scale, (_LEFT, right), ticks=8)
    y_of, y_ticks = _axis(_y_ends(panel, ys), panel.scale, (bottom, top), ticks=5)
    parts = [f'<text class="soft" x="{_LEFT}" y="{top - 8:g}">{escape(panel.title)}</text>']
    for y in y_ticks:
        at = y_of(y)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="soft" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">'
            f"{escape(panel.form(y))}</text>"
        )
    parts += [
        f'<text class="soft" x="{x_of(x):.1f}" y="{bottom + 18:g}" text-anchor="middle">{x:,g}</text>'
        for x in x_ticks
    ]
    for shade in panel.shades:
        start, end = x_of(shade.start), x_of(shade.end)
        parts.append(
            f'<rect class="shade" x="{start:.1f}" y="{top:g}" width="{max(1.0, end - start):.1f}" '
            f'height="{height:g}"/><text class="shade-name" x="{end + 4:.1f}" y="{top + 12:g}" '
            f'font-size="11">{escape(shade.name)}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom:g}" y2="{bottom:g}"/>')
    parts.append(
        f'<text class="soft" x="{right}" y="{bottom + 32:g}" text-anchor="end">{escape(panel.x_label)}</text>'
    )
    for line in panel.lines:
        shown = [(x_of(x), y_of(y)) for x, y in line.points]
        index = names.index(line.name)
        if line.dots:
            parts += [
                f'<circle class="f{index % _COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in shown
            ]
        elif shown:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
            parts.append(f'<polyline {_stroke(index)} stroke-linejoin="round" points="{path}"/>')
    return parts


def _x_ends(panel: Panel, xs: list[float]) -> tuple[float, float]:
    if panel.x_range is not None:
        return panel.x_range
    if panel.x_scale == "log":
        return _decades(xs, None)
    return min(xs), max(xs)


def _y_ends(panel: Panel, ys: list[float]) -> tuple[float, float]:
    if panel.scale == "log":
        return _decades(ys, panel.most)
    if panel.most is not None:
        return 0.0, panel.most
    step = _round_step(max(ys) / 5) if max(ys) > 0 else 0.2
    return 0.0, ceil(max(ys) / step) * step or 1.0


def _decades(values: list[float], most: float | None) -> tuple[float, float]:
    """Return the powers of ten around what is above 0."""
    above = [value for value in values if value > 0] or [1.0]
    low = floor(log10(min(above)))
    return 10.0**low, 10.0 ** max(low + 1, ceil(log10(max(above) if most is None else most)))


def _axis(
    ends: tuple[float, float], scale: Literal["linear", "log"], pixels: tuple[float, float], *, ticks: int
) -> tuple[Callable[[float], float], list[float]]:
    """Return what maps a value to pixels, and the values to write at the axis, about `ticks` of them."""
    least, greatest = ends
    start, end = pixels

    def at(part: float) -> float:
        return start + min(1.0, max(0.0, part)) * (end - start)

    if scale == "log":
        low, high = log10(least), log10(greatest)
        powers = range(ceil(low), floor(high) + 1)
        return (
            lambda value: at((log10(value) - low) / (high - low) if value > 0 else 0.0),
            [10.0**power for power in powers],
        )
    greatest = greatest if greatest > least else least + 1.0
    step = _round_step((greatest - least) / ticks)
    first, last = ceil(least / step), floor(greatest / step + 1e-9)
    return (
        lambda value: at((value - least) / (greatest - least)),
        [round(tick * step, 12) for tick in range(first, last + 1)],
    )


def _round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten: the least that is not below `rough`."""
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
