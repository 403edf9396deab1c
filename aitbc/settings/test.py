"""Tests: real PostgreSQL and Redis of the embedded stack, databases of their own."""

import os

from aitbc.settings.base import VAR_DIR
from aitbc.settings.local import *  # noqa: F403 - the settings of an environment are the base plus its changes

RATE_LIMIT_ENABLED = False  # its own tests switch it on
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
DB_ENCRYPTION_ENABLED = False  # its own tests switch it on
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
KEYS_DIR = VAR_DIR / "test" / _WORKER / "keys"
ARTIFACTS_DIR = VAR_DIR / "test" / _WORKER / "artifacts"
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
