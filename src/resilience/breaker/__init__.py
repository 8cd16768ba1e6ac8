"""Not asking what does not answer: the circuit breaker, and one for each key.

- `breaker` has what users call; `settings` checks its arguments.
- `gate` is the driver of the state machine in `_core.breaker`: the lock, the permits, and why two paths need
  no lock. `guards` has the wrappers that decorators return.
- `registry` keeps one breaker for each key.
"""

from __future__ import annotations

from resilience.breaker.breaker import CircuitBreaker, Permit, Snapshot
from resilience.breaker.registry import BreakerRegistry

__all__ = ["BreakerRegistry", "CircuitBreaker", "Permit", "Snapshot"]
