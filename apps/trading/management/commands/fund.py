"""`manage.py fund`: development only; test AIT for a user or the treasury."""

import json
import time
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError

from aitbc.accounts.models import User
from aitbc.core import money
from aitbc.core.answers import AnswerCommand
from apps.trading.services import funding


class Command(AnswerCommand):
    help = "Mint test AIT to a deposit address on the embedded chain, or book it from the treasury."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--user", help="e-mail address of who gets it")
        who.add_argument("--treasury", action="store_true", help="the treasury gets it, for --direct later")
        parser.add_argument("--amount", required=True, help="AIT, such as 100 or 0.5")
        parser.add_argument("--direct", action="store_true", help="book it from the treasury, at once")
        parser.add_argument("--once", action="store_true", help="set-up: the same recipient is minted to once")
        parser.add_argument("--wait", type=float, default=0, help="seconds to wait for the credit")

    def answer(self, **options: Any) -> tuple[Any, str]:
        if not (settings.CHAIN_EMBEDDED and getattr(settings, "DEVELOPMENT", False)):
            raise CommandError("fund is for the embedded development chain only")
        result = self._fund(**options)
        return result, json.dumps(result, indent=2)

    def _fund(
        self, *, user: str | None, amount: str, direct: bool, once: bool, wait: float, **_: Any
    ) -> dict[str, Any]:
        who = self._user(user) if user else None
        value = money.units(amount, 18)
        result = {"user": user or "treasury", "amount": amount, "asset": "AIT"}
        if direct:
            if who is None:
                raise CommandError("--direct books from the treasury to a user")
            funding.book_from_treasury(user=who, amount=value)
            return result | {"state": "credited"}
        minted = funding.mint_deposit(user=who, amount=value, key=f"once:{who or 'treasury'}" if once else "")
        state = self._wait(minted, wait) if wait else minted.state
        return result | {"address": minted.address, "state": state}

    def _user(self, email: str) -> UUID:
        found = User.objects.filter(email=email.lower()).first()
        if found is None:
            raise CommandError(f"there is no user {email}")
        return UUID(str(found.pk))

    def _wait(self, minted: funding.Minted, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = funding.state_of(minted)
            if state in ("credited", "failed"):
                return state
            time.sleep(0.1)
        raise CommandError(f"not credited within {seconds:.0f} s: is `manage.py run_chain` running?")
