"""Another attempt, where that helps: managers, the decorator, and the budget that caps them.

- `manager` has what users call; `policy` checks its arguments and settles what calls go by.
- `guards` has the loops and the wrappers, `blocks` the `for attempt in retries` form.
- `streams` is what becomes of a generator after its first item.
- `attempts` is one call: what is decided after each attempt. `traces` is what it leaves on the exception.
- `budget` caps retries relative to successes; `stats` counts.
"""

from __future__ import annotations

from resilience.retry.budget import RetryBudget, budget_of, refill_budgets
from resilience.retry.manager import AsyncRetryManager, RetryManager, with_retry
from resilience.retry.stats import RetryStats

__all__ = [
    "AsyncRetryManager",
    "RetryBudget",
    "RetryManager",
    "RetryStats",
    "budget_of",
    "refill_budgets",
    "with_retry",
]
