"""docs/asvs.md has every item that the backend is held to, with the tests that there are for it."""

from __future__ import annotations

from tests import asvs_page

# fmt: off
HELD_TO = [
    "1.3.6",
    "3.3.1", "3.3.2", "3.3.3", "3.3.4",
    "4.1.3", "4.4.2", "4.4.3", "4.4.4",
    "5.2.1", "5.2.2", "5.3.2", "5.4.1",
    "6.1.1", "6.2.1", "6.2.4", "6.2.5", "6.2.8", "6.2.9", "6.2.12",
    "6.3.1", "6.3.8",
    "6.5.1", "6.5.2", "6.5.3", "6.5.4", "6.5.5", "6.6.2", "6.6.3",
    "7.2.3", "7.2.4", "7.3.1", "7.3.2", "7.4.1", "7.4.2", "7.4.3", "7.5.2",
    "8.2.2", "8.4.1",
    "13.4.5",
    "15.3.2", "15.3.3", "15.3.4",
    "16.2.5", "16.3.1", "16.5.1", "16.5.2", "16.5.3", "16.5.4",
]
# fmt: on


def test_the_page_has_the_tests_that_there_are():
    page = asvs_page.PAGE.read_text()
    assert page == asvs_page.rendered(page), "say python -m tests.asvs_page"


def test_every_item_is_there_and_tried():
    assert asvs_page.items_of(asvs_page.PAGE.read_text()) == HELD_TO
    assert set(HELD_TO) <= asvs_page.asvs_tests().keys()


def test_no_test_is_for_an_item_that_the_page_does_not_have():
    assert asvs_page.asvs_tests().keys() <= set(HELD_TO)
