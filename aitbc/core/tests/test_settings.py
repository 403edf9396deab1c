"""Production refuses to start on anything that was left to chance; each case is a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from aitbc.settings import env

ROOT = Path(__file__).resolve().parents[3]
GOOD = {
    "DJANGO_SETTINGS_MODULE": "aitbc.settings.production",
    "SECRET_KEY": "q8Zr-1vT_9mXw2LpK7cYb4NdFhJs6GaE3uRoQiWzBxVtCkMy5HnP0",
    "DATABASE_URL": "postgresql://aitbc_app:x@db.example/aitbc",
    "DATABASE_OWNER_URL": "postgresql://aitbc_owner:y@db.example/aitbc",
    "REDIS_URL": "redis://redis.example:6379/0",
    "CHAIN_RPC_URL": "http://chain.example:8545",
    "CHAIN_NETWORK": "ait-testnet",
    "SIGNER_KEYSTORE_PATH": "/srv/keys",
    "ALLOWED_HOSTS": "aitbc.example",
}
# What is changed (None: absent), and what the refusal must name.
REFUSED = {
    **{
        f"without {name}": ({name: None}, name)
        for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "CHAIN_RPC_URL", "SIGNER_KEYSTORE_PATH")
    },
    "without a secret": ({"SECRET_KEY": None}, "SECRET_KEY"),
    "a short secret": ({"SECRET_KEY": "q8Zr-1vT_9mXw2LpK7cYb4NdFhJs6GaE3uRoQiWzBxVtCkMy5"}, "SECRET_KEY"),
    "a dull secret": ({"SECRET_KEY": "abcabcabc" * 10}, "SECRET_KEY"),
    "Django's own secret": (
        {"SECRET_KEY": "django-insecure-" + "q8Zr1vT9mXw2LpK7cYb4NdFhJs6GaE3uRoQiWz"},
        "SECRET_KEY",
    ),
    "one role for both": ({"DATABASE_OWNER_URL": "postgresql://aitbc_app:x@db.example/aitbc"}, "lesser role"),
    "one role, written differently": (
        {"DATABASE_OWNER_URL": "postgresql://aitbc_app:z@db.example:5432/aitbc?sslmode=require"},
        "lesser role",
    ),
    "no hosts": ({"ALLOWED_HOSTS": None}, "ALLOWED_HOSTS"),
    "any host": ({"ALLOWED_HOSTS": "aitbc.example,*"}, "ALLOWED_HOSTS"),
    "a host with a star": ({"ALLOWED_HOSTS": "*.example"}, "ALLOWED_HOSTS"),
    "mainnet in the clear": ({"CHAIN_NETWORK": "ait-mainnet", "DB_ENCRYPTION_ENABLED": "0"}, "ait-mainnet"),
    "another database": ({"DATABASE_URL": "sqlite:///x.db"}, "DATABASE_URL"),
    "a number that is none": ({"WEB_PROCESSES": "many"}, "WEB_PROCESSES"),
    "a truth that is none": ({"RATE_LIMIT_ENABLED": "perhaps"}, "RATE_LIMIT_ENABLED"),
}
# A process per case, forked from one that has loaded the libraries but no settings yet.
TRY_ALL = """
import json, os, sys
import django_stubs_ext, psycopg, redis
import aitbc.stack

def start(environment):
    os.environ.clear()
    os.environ.update(environment)
    from django.conf import settings
    return f"started with DEBUG {settings.DEBUG}"

outcomes = {}
for name, environment in json.load(sys.stdin).items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            told = start(environment)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    outcomes[name] = os.fdopen(reader).read()
    os.wait()
json.dump(outcomes, sys.stdout)
"""


def process(arguments, tmp_path, changes, stdin=""):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(tmp_path, changes),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(tmp_path, changes):
    wanted = {"PATH": os.environ["PATH"], "AITBC_VAR": str(tmp_path), **GOOD, **changes}
    return {name: value for name, value in wanted.items() if value is not None}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each case said: that it started, or why not."""
    folder = tmp_path_factory.mktemp("var")
    cases = {"good": {}} | {name: changes for name, (changes, _) in REFUSED.items()}
    asked = {name: environment(folder, changes) for name, changes in cases.items()}
    found = process(["-c", TRY_ALL], folder, {"DJANGO_SETTINGS_MODULE": None}, json.dumps(asked))
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_complete_environment_starts_without_debugging(outcomes):
    assert outcomes["good"] == "started with DEBUG False"


@pytest.mark.parametrize("case", REFUSED)
def test_production_refuses(case, outcomes):
    said = outcomes[case]
    assert said.startswith("ImproperlyConfigured: ")
    assert REFUSED[case][1] in said
    assert not any(secret in said for secret in (GOOD["SECRET_KEY"], ":x@", ":y@"))


def test_the_deployment_checks_have_nothing_to_say(tmp_path):
    found = process(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], tmp_path, {})
    assert found.returncode == 0, found.stderr
    assert "no issues (0 silenced)" in found.stdout


def test_importing_the_package_needs_no_settings(tmp_path):
    code = "import sys, aitbc; print(aitbc.__version__, [m for m in sys.modules if m.startswith('django')])"
    found = process(["-c", code], tmp_path, {"DJANGO_SETTINGS_MODULE": None})
    assert found.stdout == "0.1.0 []\n", found.stderr


def test_the_middleware_is_exported_and_needs_no_loaded_apps(tmp_path):
    code = """
from aitbc import (ErrorHandlerMiddleware, PerformanceLoggingMiddleware, RateLimitMiddleware,
                   RequestIDMiddleware, RequestValidationMiddleware)
from django.apps import apps
print(RequestIDMiddleware.__module__, apps.ready)
import aitbc
try:
    aitbc.Nothing
except AttributeError as error:
    print(error)
"""
    found = process(["-c", code], tmp_path, {})
    assert found.stdout.splitlines() == ["aitbc.core.middleware False", "module 'aitbc' has no attribute 'Nothing'"], (
        found.stderr
    )


# -- the reading of the environment ------------------------------------------------------------


def test_a_file_of_variables_fills_what_is_not_set(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    file.write_text("# comment\nAITBC_T1 = one \nAITBC_T2='two words'\nAITBC_T3=a=b\n\nnonsense\n")
    for name in ("AITBC_T1", "AITBC_T2", "AITBC_T3"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "set before") if name == "AITBC_T2" else None
    env.load_dotenv(file)
    found = [os.environ.pop(name) for name in ("AITBC_T1", "AITBC_T2", "AITBC_T3")]
    assert found == ["one", "set before", "a=b"]
    env.load_dotenv(tmp_path / "missing")


@pytest.mark.parametrize(
    ("raw", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False), ("", True)]
)
def test_a_truth_is_read(raw, value, monkeypatch):
    monkeypatch.setenv("AITBC_T", raw)
    assert env.boolean("AITBC_T", default=True) is value


def test_numbers_words_and_texts_are_read(monkeypatch):
    monkeypatch.setenv("AITBC_T", " a, b ,,c ")
    assert env.words("AITBC_T") == ["a", "b", "c"]
    monkeypatch.setenv("AITBC_T", "12")
    assert (env.integer("AITBC_T", 5), env.text("AITBC_T")) == (12, "12")
    monkeypatch.setenv("AITBC_T", "")
    assert (env.integer("AITBC_T", 5), env.text("AITBC_T", "other")) == (5, "other")
    with pytest.raises(ImproperlyConfigured, match="AITBC_T is not set"):
        env.text("AITBC_T")


def test_a_database_url_is_taken_apart():
    found = env.database("postgresql://us%40er:p%2Fw@db.example:6543/na%20me?sslmode=require", prepare_threshold=5)
    assert found == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "na me",
        "USER": "us@er",
        "PASSWORD": "p/w",
        "HOST": "db.example",
        "PORT": "6543",
        "CONN_MAX_AGE": None,
        "OPTIONS": {"sslmode": "require", "prepare_threshold": 5},
    }
    assert env.database("postgresql://u@/db?host=/run/pg")["HOST"] == "/run/pg"
