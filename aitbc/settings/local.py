"""Development: embedded stores, a secret of this checkout's own kept in var/ (never a shared literal)."""

import os

from aitbc.settings import env
from aitbc.settings.base import *  # noqa: F403 - the settings of an environment are the base plus its changes
from aitbc.settings.base import DB_ENCRYPTION_ENABLED, KEYS_DIR, SECRET_KEY, STATIC_ROOT
from aitbc.stack.paths import secret

DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
DEVELOPMENT = True
WEBHOOK_NETWORKS = env.words("WEBHOOK_NETWORKS", "127.0.0.0/8,::1/128")


DB_ENCRYPTION_KEY_PATH = env.text("DB_ENCRYPTION_KEY_PATH", str(KEYS_DIR / "db_encryption.key"))
# Once encrypted, in the demonstration for one, it stays so for everybody who works in this checkout.
_encrypted = DB_ENCRYPTION_ENABLED or os.path.exists(DB_ENCRYPTION_KEY_PATH)
DB_ENCRYPTION_ENABLED = env.boolean("DB_ENCRYPTION_ENABLED", default=_encrypted)
SECRET_KEY = SECRET_KEY or secret(KEYS_DIR / "django.secret")
WHITENOISE_USE_FINDERS = True  # static files straight from the packages: nothing to collect in development
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
