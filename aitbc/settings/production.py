"""Production: refuses to start on default secrets, embedded stores or a plain mainnet database."""

from django.core.exceptions import ImproperlyConfigured

from aitbc.settings import env
from aitbc.settings.base import *  # noqa: F403 - the settings of an environment are the base plus its changes
from aitbc.settings.base import ALLOWED_HOSTS, CHAIN_NETWORK, DATABASES, DB_ENCRYPTION_ENABLED, WEBHOOK_NETWORKS

DEBUG = False
DEVELOPMENT = False
SECRET_KEY = env.text("SECRET_KEY", "")
LOG_FORMAT = env.text("LOG_FORMAT", "json")

for _name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "CHAIN_RPC_URL", "SIGNER_KEYSTORE_PATH"):
    if not env.text(_name, ""):
        raise ImproperlyConfigured(f"production needs {_name}: embedded stores and keys are for development")
if DATABASES["default"]["USER"] == DATABASES["owner"]["USER"]:
    raise ImproperlyConfigured("DATABASE_URL must connect as a lesser role than DATABASE_OWNER_URL")
if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 10 or SECRET_KEY.startswith("django-insecure"):
    raise ImproperlyConfigured("SECRET_KEY must be 50 random characters or more, of your own")
if not ALLOWED_HOSTS or any("*" in host or host == "." for host in ALLOWED_HOSTS):
    raise ImproperlyConfigured("ALLOWED_HOSTS must name the hosts this platform answers for")
if WEBHOOK_NETWORKS:
    raise ImproperlyConfigured("WEBHOOK_NETWORKS is for development: production sends to public addresses")
if CHAIN_NETWORK == "ait-mainnet" and not DB_ENCRYPTION_ENABLED:
    raise ImproperlyConfigured("ait-mainnet needs an encrypted chain database: DB_ENCRYPTION_ENABLED is off")

SECURE_SSL_REDIRECT = env.boolean("SECURE_SSL_REDIRECT", default=True)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
