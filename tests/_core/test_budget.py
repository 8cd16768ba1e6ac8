"""The bucket of tokens, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience._core.budget import UNITS, Tokens


def test_a_full_bucket_pays_as_often_as_it_holds_and_no_more():
    tokens = Tokens(capacity=5.0, retry_cost=1.0, refund=1.0, success_credit=0.1)
    assert [tokens.pay() for _ in range(7)] == [True] * 5 + [False] * 2
    assert tokens.spent == tokens.capacity


def test_ten_successes_fund_exactly_one_retry():
    tokens = Tokens(capacity=1.0, retry_cost=1.0, refund=1.0, success_credit=0.1)
    assert tokens.pay()
    for _ in range(9):
        tokens.earn(tokens.success_credit)
    assert not tokens.pay()
    tokens.earn(tokens.success_credit)
    assert tokens.pay()


def test_nothing_is_earned_above_the_capacity():
    tokens = Tokens(capacity=2.0, retry_cost=1.0, refund=1.0, success_credit=0.1)
    tokens.earn(100 * UNITS)
    assert tokens.spent == 0
    assert [tokens.pay() for _ in range(3)] == [True, True, False]


tenths = st.integers(1, 50).map(lambda n: n / 10)


class AgainstExactArithmetic(RuleBasedStateMachine):
    """The same figures as fractions."""

    @initialize(capacity=tenths, cost=tenths, credit=tenths, share=st.floats(0, 1))
    def begin(self, capacity, cost, credit, share):
        self.tokens = Tokens(capacity, cost, cost * share, credit)
        self.left = self.capacity = Fraction(self.tokens.capacity, UNITS)

    @rule()
    def pay(self):
        cost = Fraction(self.tokens.retry_cost, UNITS)
        assert self.tokens.pay() == (self.left >= cost)
        if self.left >= cost:
            self.left -= cost

    @rule(what=st.sampled_from(["refund", "success_credit", "retry_cost"]))
    def earn(self, what):
        units = getattr(self.tokens, what)
        self.tokens.earn(units)
        self.left = min(self.capacity, self.left + Fraction(units, UNITS))

    @invariant()
    def agree(self):
        if hasattr(self, "tokens"):
            assert Fraction(self.tokens.capacity - self.tokens.spent, UNITS) == self.left
            assert 0 <= self.tokens.spent <= self.tokens.capacity


TestAgainstExactArithmetic = AgainstExactArithmetic.TestCase
