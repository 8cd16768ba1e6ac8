"""What the backend writes by mail. No letter says what only the account's owner may know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from examples.backend.domain.codes import LIFETIME, Purpose

if TYPE_CHECKING:
    from examples.backend.domain.codes import OneTimeCode

DAY: Final = 86_400.0


class Letter(NamedTuple):
    """A message to somebody."""

    to: str
    subject: str
    text: str
    useful_for: float = DAY
    """Seconds after which it need not be delivered any more."""


def code(to: str, issued: OneTimeCode) -> Letter:
    """Return what brings somebody a code."""
    aims = {
        Purpose.VERIFY_EMAIL: "It proves that this address is yours.",
        Purpose.RESET_PASSWORD: "It lets you choose a new password.",
    }
    return Letter(
        to,
        "Your code",
        f"Your code is {issued.digits}\n\n{aims[issued.purpose]} It works once, within ten minutes. "
        "If you have not asked for it, do not pass it on.\n",
        useful_for=LIFETIME,
    )


def known_already(to: str) -> Letter:
    """Return what somebody is told whose address was registered once more."""
    return Letter(
        to,
        "You have an account already",
        "Somebody, perhaps you, has just tried to open an account with this address, which has one.\n"
        "If it was you, simply log in. If it was not, nothing has changed and nothing needs doing.\n",
    )


def invited(to: str, inviter: str, token: str, useful_for: float) -> Letter:
    """Return what invites somebody to the tenant of `inviter`, an address that is proved.

    It has nothing that the inviter has written: else we would carry whatever they want to anybody.
    """
    return Letter(
        to,
        "An invitation",
        f"{inviter} invites you to work together.\n\n"
        "Open an account with this address and this invitation:\n\n"
        f"    {token}\n\nIt works once, within seven days. Do not pass it on.\n",
        useful_for,
    )


def joined(to: str) -> Letter:
    """Return what somebody is told who has accepted an invitation."""
    return Letter(to, "Welcome", "Your account is ready: you can log in.\n")


def password_changed(to: str) -> Letter:
    """Return what somebody is told whose password has changed."""
    return Letter(
        to,
        "Your password has changed",
        "The password of your account has just been changed. If that was not you, choose a new one at once\n"
        "by a code that is sent to this address, and end all sessions that you do not know.\n",
    )
