"""Results as text, SVG and HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from resilience.simulation import controls
from resilience.simulation.drawing import page, picture, shares, text
from resilience.simulation.log import Log
from resilience.simulation.result import Result
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.triggers import down

OUTAGE = Scenario(name="outage <1>", triggers=(down(start=10.0, length=5.0),), duration=40.0)


@pytest.fixture(scope="module")
def results():
    return {
        "none": run(OUTAGE),
        "naive & co": run(OUTAGE.replace(policy=controls.naive_retries)),
    }


def test_shares(results):
    by_second = dict(shares(results["none"]))
    assert by_second[5.0] == 1.0
    assert by_second[12.0] == 0.0
    assert len(by_second) >= 38
    assert shares(Result(OUTAGE, Log())) == []


def test_text(results):
    drawn = text(results)
    lines = drawn.splitlines()
    assert lines[0] == "outage <1>: none"
    chart = [line.partition("│")[2] for line in lines if "│" in line][:6]
    assert [row[:18] for row in chart] == ["█" * 18] * 6
    assert [row[18:27] for row in chart] == [" " * 9] * 6
    assert chart[-1] == chart[0] + "··"  # what began in the last second had not ended
    (ruler,) = {line for line in lines if "▲" in line}
    assert ruler == " " * 9 + "0" + " " * 17 + "▲" * 9 + " " * 41 + "40 s"
    assert (
        "recovered 0.0 s after the trigger; attempts per call 1.00 overall, at most 1.00 over 10 s" in drawn
    )
    assert "outage <1>: naive & co" in drawn
    (before,) = (line.split() for line in lines[:25] if line.startswith("before"))
    assert before[3:] == ["100.00%", "1.00"]


def test_text_of_a_collapse():
    hanging = OUTAGE.replace(
        triggers=(down(hangs=True, start=10.0, length=20.0),), policy=controls.naive_retries
    )
    assert "has not recovered 10 s after the trigger" in text({"naive": run(hanging)})


def test_text_without_a_trigger():
    drawn = text({"none": run(OUTAGE.replace(triggers=()))})
    assert "nothing went wrong" in drawn
    assert "during" not in drawn
    assert "▲" not in drawn


def test_text_of_a_short_run_and_of_an_empty_one():
    short = OUTAGE.replace(triggers=(down(start=1.0, length=0.001),), duration=3.0, warm_up=0.0)
    assert "▲" in text({"none": run(short)})
    log = Log()
    log.waiting.append(0)
    assert "0 calls, seed 1" in text({"none": Result(OUTAGE, log)})


def test_picture(results):
    root = ET.fromstring(picture(results))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:3] == ["outage <1>", "none", "naive & co"]
    assert texts.count("trigger") == 1
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 6
    assert "My title" in picture(results, "My title")
    with pytest.raises(ValueError, match="there is no result to draw"):
        picture({})


def test_page(results):
    opened = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            opened.append(tag)
            assert not {"src", "href"} & dict(attributes).keys()

    drawn = page(results)
    Reader().feed(drawn)
    assert (opened.count("svg"), opened.count("table")) == (1, 2)
    assert "<title>outage &lt;1&gt;</title>" in drawn
    assert "<caption>naive &amp; co</caption>" in drawn
    assert "<title>My title</title>" in page(results, "My title")
