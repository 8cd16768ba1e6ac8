"""Policies, composed: the parts that every call passes, in one object.

    search = Pipeline(RateLimiter("100/second"), RetryManager(name="search"), CircuitBreaker(name="search"))

    @search
    def find(text: str) -> list[str]: ...

- `pipeline` has what users call; `plan` and `decorated` what it makes of a function, of `stages`, or `fused`
  into one wrapper.
- `context` is what is said about a call: its key, cost, deadline, whether it is idempotent.
- `inheritance` is what is kept when a pipeline is reconfigured; `keyed` keeps a pipeline for each key.
- `explaining` says what one comes to at worst, by `steps`, `clients` and `rules`.
"""

from __future__ import annotations

from resilience.pipeline.explaining import CompositionWarning, Report, explain
from resilience.pipeline.keyed import KeyedPipelines
from resilience.pipeline.pipeline import AsyncPipeline, Pipeline
from resilience.pipeline.waiting import Waiting

__all__ = [
    "AsyncPipeline",
    "CompositionWarning",
    "KeyedPipelines",
    "Pipeline",
    "Report",
    "Waiting",
    "explain",
]
