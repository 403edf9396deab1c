import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, Person, Seller


@pytest.fixture
def artifacts_dir(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def alice(db) -> Person:
    """Buys compute and has one AIT."""
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    return alice


@pytest.fixture
def mallory(db) -> Person:
    """Knows ids that are not hers."""
    mallory = cast.person("mallory")
    cast.fund(mallory.id, AIT)
    return mallory


@pytest.fixture
def mike(db) -> Seller:
    return cast.seller("mike")


@pytest.fixture
def nora(db) -> Seller:
    return cast.seller("nora")
