from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from aitbc.accounts.keys import revoke_key
from aitbc.core.answers import AnswerCommand


class Command(AnswerCommand):
    help = "Revoke an API key at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("id", type=UUID)

    def answer(self, **options: Any) -> tuple[Any, str]:
        key = revoke_key(key_id=options["id"])
        return {"id": str(key.id), "revoked_at": str(key.revoked_at)}, f"{key} is revoked"
