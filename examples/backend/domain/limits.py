"""How often what may be done: every limit of the backend, in one place.

Logging in is guarded by three limits at once, charged together or not at all:

- 6 in 15 minutes for the pair of email address and network address: nobody guesses a password.
- 50 an hour for a network address: nobody tries one common password on a thousand accounts.
- 100 an hour for an email address: nobody guesses it from a thousand network addresses either.

A refused attempt charges none of the three. Otherwise whoever knocks on Ada's door from one network address
would, although refused after six, use up the hundred of her email address and lock her out of her own
account from everywhere. As it is, one network address gets at most 24 of the hundred in an hour: to lock her
out takes five of them that keep at it, and it ends within an hour of their stopping. Whoever is logged in
already stays so.

An attempt counts whether the password was right or wrong. The answer comes only after the hashing, which is
what the limit protects; and of a thousand parallel attempts exactly six are let in, whatever they bring.

Codes are limited in the same way, for each purpose by itself: their mails cost money and annoy, and guesses
at them are what an attacker has them sent for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from resilience import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from resilience import Decision

    Limiter = Any
    """A `RateLimiter` or its asynchronous twin: whichever `AcquireAll` takes."""
    AcquireAll = Callable[[Iterable[tuple[Limiter, Sequence[str]]]], Awaitable[Decision]]


class Limits:
    """The limiters, counting in one store. Each method charges one attempt.

    Email addresses come folded; network addresses as `resilience.http.client_key` has them.

    Args:
        limiter: Makes a limiter of a quota and a name, all counting in one store.
        acquire_all: Charges several of them, all or none.
        on_decision: Told of each decision, so that a shell can send the figures with its answer.

    Raises:
        RateLimitedError: From every method: the limit was reached.
    """

    def __init__(
        self,
        limiter: Callable[[str, str], Limiter],
        acquire_all: AcquireAll,
        on_decision: Callable[[Decision], object],
    ) -> None:
        self._acquire_all = acquire_all
        self._on_decision = on_decision
        self._login = limiter("6/15 minutes", "login")
        self._login_address = limiter("50/hour", "login-address")
        self._login_email = limiter("100/hour", "login-email")
        self._registration = limiter("5/15 minutes", "registration")
        self._verification = limiter("5/5 minutes", "verification")
        self._verification_address = limiter("50/hour", "verification-address")
        self._resend = limiter("3/2 minutes", "resend")
        self._resend_pair = limiter("5/day", "resend-pair")
        self._resend_address = limiter("20/hour", "resend-address")
        self._resend_email = limiter("20/day", "resend-email")
        self._password = limiter("6/15 minutes", "password")
        self._invitation_tenant = limiter("20/hour", "invitation-tenant")
        self._invitation_email = limiter("5/day", "invitation-email")
        self._api = limiter("100/15 minutes", "api")
        self._webhook = limiter("1000/minute", "webhook")
        self.all: Final = (
            self._login,
            self._login_address,
            self._login_email,
            self._registration,
            self._verification,
            self._verification_address,
            self._resend,
            self._resend_pair,
            self._resend_address,
            self._resend_email,
            self._password,
            self._invitation_tenant,
            self._invitation_email,
            self._api,
            self._webhook,
        )

    async def login(self, email: str, address: str) -> None:
        """Charge an attempt to log in: all three limits, or none."""
        await self._charge(
            (self._login, (email, address)),
            (self._login_address, (address,)),
            (self._login_email, (email,)),
        )

    async def registration(self, address: str) -> None:
        """Charge a registration: 5 in 15 minutes from a network address."""
        await self._charge((self._registration, (address,)))

    async def verification(self, purpose: str, email: str, address: str) -> None:
        """Charge an attempt at a code.

        5 in 5 minutes for an email address, whoever makes them: they are counted with the code too, see
        `codes`. 50 an hour for a network address: nobody tries one code on a thousand accounts.
        """
        await self._charge((self._verification, (purpose, email)), (self._verification_address, (address,)))

    async def code(self, purpose: str, email: str, address: str) -> None:
        """Charge a code to be sent.

        3 in 2 minutes and 20 a day for an email address; 20 an hour for a network address; and 5 a day for
        the pair, so that four of those are needed to keep an address from getting codes for a day.
        """
        await self._charge(
            (self._resend, (purpose, email)),
            (self._resend_pair, (purpose, email, address)),
            (self._resend_address, (address,)),
            (self._resend_email, (purpose, email)),
        )

    async def password(self, user: str) -> None:
        """Charge an attempt to change a password: 6 in 15 minutes for a user."""
        await self._charge((self._password, (user,)))

    async def invitation(self, tenant: str, email: str) -> None:
        """Charge an invitation: 20 an hour by a tenant, 5 a day for an email address."""
        await self._charge((self._invitation_tenant, (tenant,)), (self._invitation_email, (email,)))

    async def api(self, client: str) -> None:
        """Charge a request to the API: 100 in 15 minutes for a client."""
        await self._charge((self._api, (client,)))

    async def webhook(self, path: str, tenant: str) -> None:
        """Charge a delivery: 1000 a minute for a path and tenant."""
        await self._charge((self._webhook, (path, tenant)))

    async def _charge(self, *charges: tuple[Limiter, tuple[str, ...]]) -> None:
        decision = await self._acquire_all(charges)
        self._on_decision(decision)
        if not decision.allowed:
            raise RateLimitedError(decision)
