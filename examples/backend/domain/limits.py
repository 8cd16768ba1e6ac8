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

Codes and registrations are limited in the same way: their mails cost money and annoy, and guesses at codes
are what an attacker has them sent for.

While the store that counts is away, nobody is let in by what it would count: logging in, codes, registrations
and the like are answered 503. Whoever is logged in goes on, uncounted, and webhooks are taken, since they
come again only once or twice: neither limit guards a secret.
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
        limiter: Makes a limiter of a quota, with the options of a `RateLimiter`; all count in one store.
        acquire_all: Charges several of them, all or none.
        on_decision: Told of each decision, so that a shell can send the figures with its answer.

    Raises:
        RateLimitedError: From every method: the limit was reached.
    """

    def __init__(
        self,
        limiter: Callable[..., Limiter],
        acquire_all: AcquireAll,
        on_decision: Callable[[Decision], object],
    ) -> None:
        self._acquire_all = acquire_all
        self._on_decision = on_decision
        made: list[Limiter] = []

        def limit(quota: str, **options: str) -> Limiter:
            made.append(limiter(quota, **options))
            return made[-1]

        self._login = limit("6/15 minutes", name="login")
        self._login_address = limit("50/hour", name="login-address")
        self._login_email = limit("100/hour", name="login-email")
        self._registration = limit("5/15 minutes", name="registration")
        self._registration_pair = limit("5/day", name="registration-pair")
        self._registration_email = limit("20/day", name="registration-email")
        self._verification = limit("5/5 minutes", name="verification")
        self._verification_address = limit("50/hour", name="verification-address")
        self._resend = limit("3/2 minutes", name="resend")
        self._resend_pair = limit("5/day", name="resend-pair")
        self._resend_address = limit("20/hour", name="resend-address")
        self._resend_email = limit("20/day", name="resend-email")
        self._password = limit("6/15 minutes", name="password")
        self._invitation_tenant = limit("20/hour", name="invitation-tenant")
        self._invitation_email = limit("5/day", name="invitation-email")
        self._api = limit("100/15 minutes", name="api", on_outage="open")
        self._webhook = limit("1000/minute", name="webhook", on_outage="open")
        self.all: Final = tuple(made)

    async def login(self, email: str, address: str) -> None:
        """Charge an attempt to log in: all three limits, or none."""
        await self._charge(
            (self._login, (email, address)),
            (self._login_address, (address,)),
            (self._login_email, (email,)),
        )

    async def registration(self, email: str, address: str) -> None:
        """Charge a registration: 5 in 15 minutes from a network address.

        20 a day of an email address, which gets a mail each time, and 5 a day for the pair: see `code`.
        """
        await self._charge(
            (self._registration, (address,)),
            (self._registration_pair, (email, address)),
            (self._registration_email, (email,)),
        )

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
