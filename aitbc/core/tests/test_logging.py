"""Logs: structured, with the request's id, and without the secrets that people put into them."""

import io
import json
import logging
import sys

import pytest
import structlog

from aitbc.core import logging as ours

KEY = "ait_0123456789ab_" + "S" * 43
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"


@pytest.fixture(params=["json", "console"])
def output(request, settings, monkeypatch):
    """What reaches standard error in either format."""
    stream = io.StringIO()
    settings.LOG_FORMAT, settings.LOG_LEVEL = request.param, "INFO"
    monkeypatch.setattr(sys, "stderr", stream)
    ours.configure()
    yield stream.getvalue
    monkeypatch.undo()
    ours.configure()
    structlog.contextvars.clear_contextvars()


def log():
    return structlog.get_logger("aitbc.test")


class Secretive:
    def __repr__(self):
        return f"<Secretive Bearer {KEY}>"


PLANTED = {
    "in a field": lambda: log().info("x", note=f"used {KEY} today"),
    "in the message": lambda: log().info(f"used {KEY} today"),
    "in a header": lambda: log().info("x", header=f"Bearer {KEY}"),
    "in a nested dict": lambda: log().info("x", request={"headers": {"Authorization": f"Basic {KEY[5:]}"}}),
    "in a list": lambda: log().info("x", values=["a", {"deep": (KEY,)}]),
    "in an object": lambda: log().info("x", thing=Secretive()),
    "in an exception": lambda: log().error("x", error=ValueError(KEY)),
    "in the standard library": lambda: logging.getLogger("other").warning("got %s and %s", KEY, "more"),
    "in bound context": lambda: structlog.contextvars.bind_contextvars(who=KEY) and log().info("x"),
}


@pytest.mark.parametrize("where", PLANTED)
def test_a_key_is_blanked_wherever_it_is(where, output):
    PLANTED[where]()
    assert "S" * 20 not in output()
    assert "[redacted]" in output()


def test_a_key_in_a_traceback_is_blanked(output):
    for logger in (log(), logging.getLogger("other")):
        try:
            raise RuntimeError(f"refused {KEY}")
        except RuntimeError:
            logger.exception("failed")
    text = output()
    assert "S" * 20 not in text
    assert text.count("RuntimeError") >= 2
    assert text.count("[redacted]") >= 2


SECRET_NAMES = [
    *("password", "new_password", "passwd", "passphrase", "secret", "client_secret", "token", "lease_token"),
    *("private_key", "mnemonic", "api_key", "apikey", "Authorization", "cookie", "Set-Cookie"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_field_named_like_a_secret_is_blanked(name, output):
    log().info("x", **{name: "hunter2"})
    log().info("y", inner={name: "hunter2"})
    assert "hunter2" not in output()


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("postgresql://app:hunter2@db.example/aitbc", "hunter2", "db.example/aitbc"),
        ("redis://:hunter2@redis.example:6379", "hunter2", "redis.example:6379"),
        (f"key file: {PEM} read", "MHcCAQEE", "read"),
        ("Authorization: Bearer abc.def.ghi end", "abc.def.ghi", "end"),
        ("https://x.example/?a=1&token=hunter2&b=2", "hunter2", "b=2"),
        ("password=hunter2 host=db", "hunter2", "host=db"),
    ],
)
def test_a_secret_inside_a_text_is_blanked_and_the_rest_stays(text, secret, kept, output):
    log().info("x", note=text)
    assert secret not in output()
    assert kept in output()


@pytest.mark.parametrize("name", ["tokens", "kind", "path", "amount", "price", "public_key_id"])
def test_what_is_no_secret_stays(name, output):
    log().info("x", **{name: "visible"})
    assert "visible" in output()


def test_a_line_is_one_json_object_with_its_facts(settings, monkeypatch):
    stream = io.StringIO()
    settings.LOG_FORMAT, settings.LOG_LEVEL = "json", "INFO"
    monkeypatch.setattr(sys, "stderr", stream)
    ours.configure()
    structlog.contextvars.bind_contextvars(request_id="abc")
    log().info("paid", amount=10**30, items=[1, {"a": None}])
    logging.getLogger("other").warning("old %s", "style")
    log().debug("not shown")
    monkeypatch.undo()
    ours.configure()
    structlog.contextvars.clear_contextvars()

    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "paid",
        "amount": 10**30,
        "items": [1, {"a": None}],
        "request_id": "abc",
        "logger": "aitbc.test",
        "level": "info",
    }
    assert (second["event"], second["logger"], second["level"]) == ("old style", "other", "warning")


def test_configuring_again_adds_no_second_handler():
    before = len(logging.getLogger().handlers)
    ours.configure()
    ours.configure()
    assert len(logging.getLogger().handlers) == before
