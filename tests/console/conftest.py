"""An operator at the console of a platform on which everything has happened at least twice."""

import pytest
from django.test import Client

from aitbc.accounts.models import Role, User
from tests.console.scene import Scene, build


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator@example.com")


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
def scene(db: None) -> Scene:
    return build()
