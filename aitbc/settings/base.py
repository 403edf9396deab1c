"""Settings shared by every environment. Environment variables are listed in docs/configuration.md."""

from pathlib import Path

import django_stubs_ext

from aitbc import stack
from aitbc.settings import env

django_stubs_ext.monkeypatch()  # generic fields and admin classes are subscripted at run time too
BASE_DIR = Path(__file__).resolve().parents[2]
env.load_dotenv(BASE_DIR / ".env")
VAR_DIR = stack.paths.current().root
KEYS_DIR = Path(env.text("SIGNER_KEYSTORE_PATH", str(VAR_DIR / "keys")))
ARTIFACTS_DIR = Path(env.text("STORAGE_PATH", str(VAR_DIR / "artifacts")))

DEBUG = False
# Empty on purpose: local and test settings make their own, production demands one.
SECRET_KEY = env.text("SECRET_KEY", "")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS")
ROOT_URLCONF = "aitbc.urls"
WSGI_APPLICATION = "aitbc.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "aitbc" / "static"]
FORMAT_MODULE_PATH = ["aitbc.formats"]

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_celery_beat",
    "pgtrigger",
    "aitbc.core",
    "aitbc.accounts",
    "aitbc.chain",
    "aitbc.webhooks",
    "apps.trading",
    "apps.gpu",
    "apps.marketplace",
    "aitbc.demo",
]
MIDDLEWARE = [
    "aitbc.RequestIDMiddleware",
    "aitbc.PerformanceLoggingMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "aitbc.RequestValidationMiddleware",
    "aitbc.RateLimitMiddleware",
    "aitbc.ErrorHandlerMiddleware",
    "aitbc.core.browsers.SessionMiddleware",
    "aitbc.core.browsers.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "aitbc.core.browsers.AuthenticationMiddleware",
    "aitbc.core.browsers.MessageMiddleware",
    "aitbc.accounts.audit.AuditMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "aitbc" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# -- stores ------------------------------------------------------------------------------------
# Asked only when something is embedded: the answer makes passwords under var/, which production has not.
_given = [env.text(name, "") for name in ("DATABASE_URL", "REDIS_URL", "CHAIN_RPC_URL")]
_none = stack.Urls(database_url="", database_owner_url="", redis_url="", chain_rpc_url="")
_embedded = _none if all(_given) else stack.discover()
DATABASE_URL = env.text("DATABASE_URL", _embedded.database_url)
DATABASE_OWNER_URL = env.text(
    "DATABASE_OWNER_URL", DATABASE_URL if env.text("DATABASE_URL", "") else _embedded.database_owner_url
)
REDIS_URL = env.text("REDIS_URL", _embedded.redis_url)
CHAIN_NETWORK = env.text("CHAIN_NETWORK", "ait-devnet")
CHAIN_RPC_URL = env.text("CHAIN_RPC_URL", _embedded.chain_rpc_url)
CHAIN_ID = env.integer("CHAIN_ID", 31337)
CHAIN_EMBEDDED = not env.text("CHAIN_RPC_URL", "")
CHAIN_FINALITY_DEPTH = env.integer("CHAIN_FINALITY_DEPTH", 5)
CHAIN_MAX_FEE = env.integer("CHAIN_MAX_FEE", 500 * 10**9)  # wei per gas; above it, intents wait
EMBEDDED_STORES = not (env.text("DATABASE_URL", "") and env.text("REDIS_URL", ""))
DB_ENCRYPTION_ENABLED = env.boolean("DB_ENCRYPTION_ENABLED", default=CHAIN_NETWORK == "ait-mainnet")
DB_ENCRYPTION_KEY_PATH = env.text("DB_ENCRYPTION_KEY_PATH", "/etc/aitbc/secrets/db_encryption.key")
# The ladder: a lock wait ends before its statement, a statement before the web server gives up.
# Without the last one a client that vanished inside a transaction would hold its locks for ever.
_TIMEOUTS = "-c lock_timeout=5000 -c statement_timeout=20000 -c idle_in_transaction_session_timeout=30000"
DATABASES = {
    "default": env.database(DATABASE_URL, options=_TIMEOUTS, prepare_threshold=5),
    "owner": env.database(DATABASE_OWNER_URL),
    "chain": {
        "ENGINE": "aitbc.core.sqlcipher",
        "NAME": VAR_DIR / "chain" / CHAIN_NETWORK / "chain.db",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
        },
    },
}
DATABASE_ROUTERS = ["aitbc.chain.router.ChainRouter", "aitbc.core.routers.OwnerRouter"]
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
SESSION_ENGINE = "django.contrib.sessions.backends.db"

# -- people ------------------------------------------------------------------------------------
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"

# -- web ---------------------------------------------------------------------------------------
STREAM_URL = env.text("STREAM_URL", "")
WEB_PROCESSES = env.integer("WEB_PROCESSES", 2)
MAX_BODY_BYTES = env.integer("MAX_BODY_BYTES", 2 * 1024 * 1024)
MAX_ARTIFACT_BYTES = env.integer("MAX_ARTIFACT_BYTES", 512 * 1024 * 1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = None  # RequestValidationMiddleware decides, per route
RATE_LIMIT_ENABLED = env.boolean("RATE_LIMIT_ENABLED", default=True)
RATE_LIMIT_PER_MINUTE = env.integer("RATE_LIMIT_PER_MINUTE", 6000)
RATE_LIMIT_ANONYMOUS_PER_MINUTE = env.integer("RATE_LIMIT_ANONYMOUS_PER_MINUTE", 600)
SLOW_REQUEST_MS = env.integer("SLOW_REQUEST_MS", 500)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "aitbc.core.auth.DrfApiKey",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "aitbc.core.pagination.DrfCursorPagination",
    "DEFAULT_SCHEMA_CLASS": "aitbc.core.schema.ProblemAutoSchema",
    "EXCEPTION_HANDLER": "aitbc.core.http.drf_exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "AITBC: people's API",
    "DESCRIPTION": "Where a person browses, filters and administers. Machines use /v1.",
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
}

# -- webhooks --------------------------------------------------------------------------------
# Networks in which receivers may be that are not public, over http and on any port: for development.
WEBHOOK_NETWORKS = env.words("WEBHOOK_NETWORKS")

# -- celery ------------------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ACKS_LATE = True
# Not reject_on_worker_lost: a job that kills its worker would come back for ever (protocols 29).
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_VISIBILITY_TIMEOUT = env.integer("CELERY_VISIBILITY_TIMEOUT", 4 * 3600)
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": CELERY_VISIBILITY_TIMEOUT}
MAX_JOB_SECONDS = 10_800  # the upper bound of the parameter max_job_seconds

# -- logs --------------------------------------------------------------------------------------
LOG_FORMAT = env.text("LOG_FORMAT", "console")
LOG_LEVEL = env.text("LOG_LEVEL", "INFO")
LOGGING_CONFIG = None  # aitbc.core.logging configures structlog and the standard library together

# -- jobs --------------------------------------------------------------------------------------
POLL_WAITERS = env.integer("POLL_WAITERS", 4)
STREAM_WAITERS = env.integer("STREAM_WAITERS", 5000)
GPU_WORKER_CPUS = env.text("GPU_WORKER_CPUS", "")
GPU_WORKER_REGION = env.text("GPU_WORKER_REGION", "local")
GPU_WORKER_PRICE = env.text("GPU_WORKER_PRICE", "0.001")
RECEIPT_ADDRESSES = env.words("RECEIPT_ADDRESSES")

# -- console -----------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "AITBC console",
    "SITE_HEADER": "AITBC",
    "SITE_SUBHEADER": "AI compute marketplace",
    "SITE_SYMBOL": "hub",
    "SITE_URL": "",
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "aitbc.console.dashboard",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "aitbc.console.favicon"}],
    "STYLES": ["aitbc.console.stylesheet"],
    "COMMAND": {"search_callback": "aitbc.console.find"},
    "SIDEBAR": {"show_search": True, "command_search": True, "navigation": "aitbc.console.navigation"},
}
