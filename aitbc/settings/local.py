"""Development: embedded stores, a secret of this checkout's own kept in var/ (never a shared literal)."""

import os
import secrets

from aitbc.settings import env
from aitbc.settings.base import *  # noqa: F403 - the settings of an environment are the base plus its changes
from aitbc.settings.base import KEYS_DIR, SECRET_KEY, STATIC_ROOT

DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
DEVELOPMENT = True
WEBHOOK_NETWORKS = env.words("WEBHOOK_NETWORKS", "127.0.0.0/8,::1/128")


def _own_secret() -> str:
    path = KEYS_DIR / "django.secret"
    KEYS_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(secret := secrets.token_urlsafe(48))
    return secret


SECRET_KEY = SECRET_KEY or _own_secret()
WHITENOISE_USE_FINDERS = True  # static files straight from the packages: nothing to collect in development
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
