"""What the package offers by its own name."""

from __future__ import annotations

import resilience
from resilience import retry


def test_the_package_and_the_public_face_offer_the_same_objects():
    shared = set(retry.__all__) & set(resilience.__all__)

    assert shared == {"AsyncRetryManager", "RetryBudget", "RetryManager", "with_retry"}
    assert all(getattr(retry, name) is getattr(resilience, name) for name in shared)


def test_everything_it_offers_is_there():
    assert all(hasattr(retry, name) for name in retry.__all__)
