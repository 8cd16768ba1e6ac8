"""The fixtures that come with the library: pytest finds them by entry point, nothing need be imported.

Every run of pytest loads this module, so what a fixture needs is imported by the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.testing import EventRecorder, FakeClock, FaultInjector, SeededRandom


@pytest.fixture
def resilience_clock() -> FakeClock:
    """Return a clock that moves by itself when slept on: pass it as the `clock` of a policy."""
    from resilience.testing import FakeClock  # noqa: PLC0415 - see the module

    return FakeClock()


@pytest.fixture
def resilience_random() -> SeededRandom:
    """Return chance that repeats itself: pass it as the `random` of a policy."""
    from resilience.testing import SeededRandom  # noqa: PLC0415 - see the module

    return SeededRandom()


@pytest.fixture
def resilience_faults(resilience_clock: FakeClock) -> Iterator[FaultInjector]:
    """Make chosen calls fail, drag on (by `resilience_clock`) or hang (until the test ends)."""
    from resilience.testing import FaultInjector  # noqa: PLC0415 - see the module

    faults = FaultInjector(clock=resilience_clock)
    yield faults
    faults.release()


@pytest.fixture
def resilience_events() -> Iterator[EventRecorder]:
    """Record all events of this process during the test."""
    from resilience.testing import EventRecorder  # noqa: PLC0415 - see the module

    with EventRecorder() as recorder:
        yield recorder
