"""What runs came to, drawn: as text for a terminal, as SVG, and as a page of HTML that loads nothing."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from resilience.simulation.charts import Line, Panel, Shade, svg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resilience.simulation.result import Result

    Results = Mapping[str, Result]
    """By the names of their policies; all of one scenario."""

COLUMNS: Final = 72
"""Characters of a chart in text."""

ROWS: Final = 6
"""Lines of a chart in text."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"

_HEADINGS: Final = ("offered/s", "goodput/s", "share", "attempts/call")


# --- figures -------------------------------------------------------------------------------------


def shares(result: Result) -> list[tuple[float, float]]:
    """Return for each second its beginning, and the share of the calls begun in it that succeeded.

    Seconds without any call, or with calls that had not ended when the run did, are left out.
    """
    seconds = range(int(result.scenario.duration))
    levels = [(float(second), result.level(second, second + 1)) for second in seconds]
    return [
        (second, level.share) for second, level in levels if level.offered and level.ended == level.offered
    ]


def _verdict(result: Result) -> str:
    if not result.scenario.triggers:
        return "nothing went wrong"
    if result.recovery_time is None:
        left = result.scenario.duration - result.scenario.ends
        return f"has not recovered {left:g} s after the trigger"
    return f"recovered {result.recovery_time:.1f} s after the trigger"


def _rows(result: Result) -> list[tuple[str, str, str, str, str]]:
    levels = [("before", result.before)]
    if result.scenario.triggers:
        levels += [("during", result.during), ("after", result.after)]
    return [
        (
            name,
            f"{level.offered:,.1f}",
            f"{level.goodput:,.1f}",
            f"{level.share:.2%}",
            f"{level.amplification:.2f}",
        )
        for name, level in levels
    ]


def _summary(result: Result) -> str:
    return (
        f"{_verdict(result)}; attempts per call {result.amplification:.2f} overall, at most "
        f"{result.peak_amplification():.2f} over 10 s; {len(result.log.began):,} calls, "
        f"seed {result.scenario.seed}"
    )


# --- text ----------------------------------------------------------------------------------------


def text(results: Results) -> str:
    """Return the results for a terminal, one below the other."""
    return "\n".join(_text_of(name, result) for name, result in results.items())


def _text_of(name: str, result: Result) -> str:
    duration = result.scenario.duration
    heights = _columns(shares(result), duration, min)
    lines = [f"{result.scenario.name}: {name}", "", "share of the calls that succeed"]
    for row in reversed(range(ROWS)):
        label = "100 %" if row == ROWS - 1 else "0 %" if row == 0 else ""
        lines.append(f"{label:>7} │{_row(heights, row, ROWS)}")
    lines += [f"{'':>7} └{'─' * COLUMNS}", f"{'':>9}{_ruler(result)}"]
    series = result.series
    for label, values in (("attempts each second", series.attempts), ("requests waiting", series.waiting)):
        most = max(values)
        parts = [(second, value / (most or 1)) for second, value in _over_time(values)]
        lines += [f"{label}, at most {most:,}", f"{'':>9}{_row(_columns(parts, duration, max), 0, 1)}"]
    lines += ["", f"{'':9}" + "".join(f"{heading:>15}" for heading in _HEADINGS)]
    lines += [f"{row[0]:9}" + "".join(f"{cell:>15}" for cell in row[1:]) for row in _rows(result)]
    lines += ["", _summary(result), ""]
    return "\n".join(line.rstrip() for line in lines)


def _columns(
    points: Sequence[tuple[float, float]], duration: float, choose: Callable[[Sequence[float]], float]
) -> list[float | None]:
    """Return a value for each column of the chart, chosen among those that fall into it; None if none do."""
    columns: list[list[float]] = [[] for _ in range(COLUMNS)]
    for at, value in points:
        first = int(at / duration * COLUMNS)
        last = max(first + 1, int((at + 1.0) / duration * COLUMNS))
        for column in columns[first:last]:
            column.append(value)
    return [choose(column) if column else None for column in columns]


def _row(heights: Sequence[float | None], row: int, rows: int) -> str:
    """Return line number `row` of a chart, counted from below; a dot where nothing is known."""
    return "".join(
        (" " if row else "·") if height is None else _block(height * rows - row) for height in heights
    )


def _block(part: float) -> str:
    """Return a block that is filled to `part`, 0 to 1."""
    return _BLOCKS[round(min(1.0, max(0.0, part)) * (len(_BLOCKS) - 1))]


def _ruler(result: Result) -> str:
    """Return the marks below the axis: where the triggers are, and how long all lasts."""
    duration = result.scenario.duration
    marks = [" "] * COLUMNS
    for trigger in result.scenario.triggers:
        first, last = int(trigger.start / duration * COLUMNS), int(trigger.end / duration * COLUMNS)
        marks[first : max(first + 1, last)] = "▲" * max(1, last - first)
    end = f"{duration:g} s"
    return "0" + "".join(marks)[1 : COLUMNS - len(end)] + end


# --- SVG and HTML --------------------------------------------------------------------------------


def picture(results: Results, title: str | None = None) -> str:
    """Return an SVG of the results: goodput, attempts and queue over time, one line for each policy.

    Raises:
        ValueError: There is no result.
    """
    if not results:
        raise ValueError("there is no result to draw")
    scenario = next(iter(results.values())).scenario
    named = [Shade(trigger.start, trigger.end, "trigger") for trigger in scenario.triggers]
    shades = [Shade(trigger.start, trigger.end) for trigger in scenario.triggers]
    all_along = (0.0, scenario.duration)
    series = {name: result.series for name, result in results.items()}
    panels = [
        Panel(
            title="share of the calls begun in each second that succeed",
            lines=[Line(name, shares(result)) for name, result in results.items()],
            most=1.0,
            shades=named,
            x_range=all_along,
            form="{:.0%}".format,
        ),
        Panel(
            title="attempts in each second",
            lines=[Line(name, _over_time(one.attempts)) for name, one in series.items()],
            shades=shades,
            x_range=all_along,
        ),
        Panel(
            title="requests waiting on all servers",
            lines=[Line(name, _over_time(one.waiting)) for name, one in series.items()],
            x_label="seconds",
            shades=shades,
            x_range=all_along,
        ),
    ]
    return svg(title or scenario.name, panels)


def _over_time(values: Sequence[int]) -> list[tuple[float, float]]:
    return [(float(second), float(value)) for second, value in enumerate(values)]


_PAGE_STYLE: Final = """
  :root { color-scheme: light dark; --page: #ffffff; --ink: #1f2430; --soft: #5b6472; --line: #dfe3e8 }
  @media (prefers-color-scheme: dark) {
    :root { --page: #14171c; --ink: #e6e9ee; --soft: #a3acba; --line: #2b313a }
  }
  body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
         max-width: 780px; padding: 0 1rem }
  svg { height: auto; max-width: 100% }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 2rem; width: 100% }
  caption { font-weight: 600; text-align: left }
  th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 0.6rem; text-align: right }
  th:first-child { text-align: left }
  thead th, p { color: var(--soft); font-weight: 400 }
"""


def page(results: Results, title: str | None = None) -> str:
    """Return a page of HTML with the picture and the figures; a single file that loads nothing.

    Raises:
        ValueError: There is no result.
    """
    drawn = picture(results, title)
    name = escape(title or next(iter(results.values())).scenario.name)
    tables = "\n".join(_table(policy, result) for policy, result in results.items())
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{name}</title>\n'
        f"<style>{_PAGE_STYLE}</style>\n</head>\n<body>\n{drawn}{tables}\n</body>\n</html>\n"
    )


def _table(policy: str, result: Result) -> str:
    headings = "".join(f'<th scope="col">{heading}</th>' for heading in ("", *_HEADINGS))
    rows = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in _rows(result)
    )
    return (
        f"<table><caption>{escape(policy)}</caption><thead><tr>{headings}</tr></thead>"
        f"<tbody>{rows}</tbody></table>\n<p>{escape(_summary(result))}</p>"
    )
