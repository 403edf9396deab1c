"""An operator at the console of a platform on which everything has happened at least twice."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from aitbc.accounts.models import Role, User
from tests.console.scene import Scene, build

BOTH = {"default", "chain"}


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator@example.com", "a long password 123")


@pytest.fixture
def console(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


@pytest.fixture
def visitor(db: None) -> Client:
    """Signed in, but not staff."""
    client = Client()
    client.force_login(User.objects.create_user("visitor@example.com", role=Role.CLIENT))
    return client


@pytest.fixture
def scene(db: None, keys_dir: Path) -> Any:
    from apps.gpu import receipts

    receipts.platform_signer.cache_clear()
    yield build()
    receipts.platform_signer.cache_clear()


__all__ = ["Scene"]
