from __future__ import annotations

from resilience.testing import SeededRandom


def test_one_seed_draws_the_same_numbers():
    first, second = SeededRandom(3), SeededRandom(3)

    assert [first() for _ in range(9)] == [second() for _ in range(9)]


def test_other_seeds_draw_others():
    assert SeededRandom(3)() != SeededRandom(4)()


def test_numbers_lie_below_one():
    chance = SeededRandom()

    assert all(0.0 <= chance() < 1.0 for _ in range(1000))


def test_what_was_drawn_is_remembered():
    chance = SeededRandom()

    assert chance.drawn == []
    assert [chance(), chance()] == chance.drawn


def test_repr_makes_an_equal_one():
    assert eval(repr(SeededRandom(7)))() == SeededRandom(7)()
