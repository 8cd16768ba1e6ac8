"""Charts as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from resilience.simulation.charts import Line, Panel, Shade, svg

SPACE = "{http://www.w3.org/2000/svg}"


def elements(panels, kind, **options):
    return ET.fromstring(svg("A <title> & more", panels, **options)).iter(SPACE + kind)


def texts(*panels):
    return [element.text for element in elements(panels, "text")]


def points(panel):
    (line,) = elements([panel], "polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


LINE = Line("full", [(0, 0.0), (10, 50.0), (20, 100.0)])


def test_a_line_goes_from_corner_to_corner():
    assert points(Panel(title="x", lines=[LINE])) == [(68.0, 286.0), (406.0, 186.0), (744.0, 86.0)]


def test_the_axes_are_marked_at_round_figures():
    written = texts(Panel(title="calls", lines=[LINE], x_label="seconds"))
    assert written == [
        "A <title> & more",
        "full",
        "calls",
        *["0", "20", "40", "60", "80", "100"],
        *["0", "5", "10", "15", "20"],
        "seconds",
    ]
    assert "100 %" in texts(Panel(title="share", lines=[LINE], most=100.0, form="{:.0f} %".format))


def test_the_axis_of_y_ends_at_a_round_figure_above():
    assert "1,500" in texts(Panel(title="x", lines=[Line("a", [(0, 1.0), (1, 1234.0)])]))
    assert "1" in texts(Panel(title="x", lines=[Line("flat", [(0, 0.0), (1, 0.0)])]))


def test_one_instant_is_an_axis_too():
    assert points(Panel(title="x", lines=[Line("a", [(5, 1.0)])])) == [(68.0, 86.0)]


def test_an_axis_can_be_longer_than_its_lines():
    assert points(Panel(title="x", lines=[LINE], x_range=(0, 40), most=200.0))[-1] == (406.0, 186.0)


def test_what_lies_outside_stays_at_the_edge():
    assert points(Panel(title="x", lines=[LINE], x_range=(0, 10), most=50.0))[-1] == (744.0, 86.0)


def test_logarithmic_axes():
    panel = Panel(
        title="x",
        lines=[Line("a", [(10, 0.0), (100, 0.01), (1000, 1.0)])],
        scale="log",
        x_scale="log",
    )
    assert points(panel) == [(68.0, 286.0), (406.0, 286.0), (744.0, 86.0)]
    assert [text for text in texts(panel) if re.fullmatch(r"[\d.,]+", text or "")] == [
        *["0.01", "0.1", "1"],
        *["10", "100", "1,000"],
    ]
    assert points(Panel(title="x", lines=[Line("a", [(1, 0.0)])], scale="log", most=100.0)) == [(68.0, 286.0)]


def test_shades_and_dots():
    panel = Panel(
        title="x", lines=[LINE, Line("measured", [(10, 50.0)], dots=True)], shades=[Shade(5, 10, "trigger")]
    )
    _, shade = elements([panel], "rect")
    assert (shade.get("x"), shade.get("width")) == ("237.0", "169.0")
    assert "trigger" in texts(panel)
    (dot,) = elements([panel], "circle")
    assert (dot.get("cx"), dot.get("cy")) == ("406.0", "186.0")


def test_lines_of_one_name_look_alike_and_others_do_not():
    panels = [Panel(title="x", lines=[LINE, Line("none", LINE.points)]), Panel(title="y", lines=[LINE])]
    looks = [(one.get("class"), one.get("stroke-dasharray")) for one in elements(panels, "polyline")]
    assert looks[0] == looks[2]
    assert looks[0][0] != looks[1][0]
    assert looks[0][1] != looks[1][1]


def test_a_long_legend_has_several_lines():
    many = [Line(f"a policy of some length {number}", [(0, 1.0), (1, 2.0)]) for number in range(7)]
    legend = [one for one in elements([Panel(title="x", lines=many)], "line") if one.get("class")[0] == "c"]
    assert len({one.get("y1") for one in legend}) == 3


def test_a_panel_may_be_empty_but_not_the_picture():
    empty = Panel(title="x", lines=[Line("a", [])])
    assert len(list(elements([empty, Panel(title="y", lines=[LINE])], "polyline"))) == 1
    with pytest.raises(ValueError, match="'A <title> & more': there is no point to draw"):
        svg("A <title> & more", [empty])


def test_it_is_for_light_and_dark_and_for_those_who_cannot_see_it():
    picture = svg("Outage", [Panel(title="share of calls", lines=[LINE])], height=100)
    assert "prefers-color-scheme: dark" in picture
    assert 'role="img"' in picture
    assert "<title>Outage</title>" in picture
    assert "<desc>share of calls</desc>" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
