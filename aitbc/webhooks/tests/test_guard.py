"""No receiver lies inside: whatever the address is called, however it resolves (bar R2)."""

import os
import socket
import ssl
import subprocess
import sys
from functools import cache
from typing import Annotated

import pytest
from aiohttp.abc import AbstractResolver
from pydantic import Field, TypeAdapter, ValidationError

from aitbc.webhooks import guard
from aitbc.webhooks.guard import is_permitted, open_socket
from aitbc.webhooks.models import Endpoint
from aitbc.webhooks.sender import Sender
from aitbc.webhooks.tests.conftest import only, pass_time, register, send, tell
from aitbc.webhooks.tests.sink import sink

INSIDE = [
    "127.0.0.1", "127.255.0.3", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "fe80::1",
    "fe80::1%eth0", "fec0::1",
    "fc00::1", "fd00:ec2::254", "ff02::1", "2002:7f00:1::", "2002:808:808::", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::a00:1", "2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]


@pytest.fixture
def production(settings):
    settings.WEBHOOK_NETWORKS = []


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused_on_every_port(production, address):
    assert [port for port in (80, 443, 8443, 5432) if is_permitted(address, port)] == []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(PermissionError, match="public address"):
        open_socket((family, socket.SOCK_STREAM, 6, "", (address, 443)))


@pytest.mark.parametrize("address", OUTSIDE)
def test_a_public_address_is_reached_on_port_443_alone(production, address):
    assert [port for port in (22, 80, 443, 8443, 6379) if is_permitted(address, port)] == [443]


def test_networks_of_development_are_open_and_no_others(settings):
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8", "::1/128"]
    assert is_permitted("127.0.0.1", 8080)
    assert is_permitted("::1", 80)
    assert [address for address in INSIDE if not address.startswith("127.") and is_permitted(address, 443)] == ["::1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://example.com:8443/", "https://example.com:80/",
        "https://user@example.com/", "https://user:pw@example.com/", "https://127.0.0.1/", "https://0x7f.1/",
        "https://0x7f.0x1/", "https://2130706433/", "https://017700000001/", "https://127.1/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://localhost/", "https://localhost", "https:///x", "https://",
        "//example.com/", "example.com", "", "https://exa mple.com/", "https://example.com/\x00", "https://example.com\\@127.0.0.1/",
        "https://example.com/ü", "https://.example.com/", "https://example..com/", "https://example.com#@127.0.0.1/",
        "https://127.0.0.1#.example.com/", "https://169.254.169.254/latest", "https://①②⑦.⓪.⓪.①/",
        "https://example.com\n", "javascript:alert(1)", "http://localhost:80/", "http://127.0.0.1:80/",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_public_is_refused_when_it_is_given(url):
    assert not accepts(production_url(), url)
    assert not accepts(guard.URL, url) or url.startswith("http://")


def accepts(pattern, url):
    """By the engine that checks requests."""
    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python(url)
    except ValidationError:
        return False
    return True


def production_url():
    """The pattern as a process without open networks has it."""
    script = "import django; django.setup(); from aitbc.webhooks import guard; print(guard.URL)"
    return run_production(script)


@cache
def run_production(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"WEBHOOK_NETWORKS": ",", "DJANGO_SETTINGS_MODULE": "aitbc.settings.local"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://a-b.example.co.uk:443/hooks?x=1&y=%20", "HTTPS://Example.COM/A"]
)
def test_a_public_name_is_taken_as_it_is(url):
    assert accepts(production_url(), url)
    assert accepts(guard.URL, url)


def test_plain_http_is_for_local_receivers_of_development():
    assert accepts(guard.URL, "http://127.0.0.1:8000/x")
    assert not accepts(production_url(), "http://127.0.0.1:8000/x")
    assert not accepts(guard.URL, "http://example.com/")


class Names(AbstractResolver):
    """A name server that answers each question with the next of its answers."""

    def __init__(self, port, *answers):
        self.port, self.answers, self.asked = port, list(answers), 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        addresses = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [
            {"hostname": host, "host": address, "port": self.port, "family": socket.AF_INET, "proto": 6, "flags": 0}
            for address in addresses
        ]

    async def close(self):
        pass


def test_a_name_that_turns_inside_between_two_questions_is_not_followed(alice, settings):
    """DNS rebinding: the first answer is an address that may be reached, the next one is not."""
    settings.WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    with sink("127.0.0.1", answer=lambda request: (500, {"connection": "close"})) as public:
        with sink("127.0.0.2", port=public.port) as inside:
            hook = register(alice, "https://receiver.example.com/hook")
            Endpoint.objects.update(url=f"http://receiver.example.com:{public.port}/hook")
            names = Names(public.port, ["127.0.0.1"], ["127.0.0.2"])
            sender = Sender(resolver=names)
            tell(alice)
            send(sender)
            assert (len(public.requests), names.asked) == (1, 1)
            sender.session.connector.clear_dns_cache()
            pass_time(seconds=10)
            send(sender)
            sender.close()

            assert (len(public.requests), names.asked, inside.requests) == (1, 2, [])
    assert (only(hook).attempts, only(hook).status) == (2, None)
    assert "public address" in only(hook).error


def test_of_several_addresses_only_those_outside_are_tried(alice, settings):
    settings.WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    with sink("127.0.0.1") as public, sink("127.0.0.2", port=public.port) as inside:
        register(alice, "https://receiver.example.com/hook")
        Endpoint.objects.update(url=f"http://receiver.example.com:{public.port}/hook")
        sender = Sender(resolver=Names(public.port, ["127.0.0.2", "10.0.0.1", "127.0.0.1"]))
        tell(alice)
        send(sender)
        sender.close()

        assert (len(public.requests), inside.requests) == (1, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::ffff:127.0.0.1]", "127.1"])
def test_spellings_of_the_inside_reach_nothing_even_past_the_form(alice, settings, host):
    """Straight into the table, and resolved by the machine's own resolver."""
    settings.WEBHOOK_NETWORKS = []
    with sink("127.0.0.1") as inside:
        hook = register(alice, "https://receiver.example.com/hook")
        Endpoint.objects.update(url=f"http://{host}:{inside.port}/hook")
        sender = Sender()
        tell(alice)
        send(sender)
        sender.close()

        assert inside.requests == []
    assert (only(hook).state, only(hook).attempts, only(hook).status) == ("pending", 1, None)
    assert only(hook).error


def test_a_kept_connection_was_checked_when_it_was_made(alice, hook, receiver, sender, monkeypatch):
    opened = []
    from aitbc.webhooks import sender as module

    monkeypatch.setattr(module, "open_socket", lambda info: opened.append(info) or open_socket(info))
    fresh = Sender()
    for _ in range(5):
        tell(alice)
        send(fresh)
    fresh.close()
    assert (len(receiver.requests), len(opened)) == (5, 1)


def test_a_certificate_of_another_name_is_refused(alice, sender, tmp_path):
    """TLS verifies the name of the URL, whatever address was checked."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with sink("127.0.0.1", tls=context) as imposter:
        hook = register(alice, "https://receiver.example.com/hook")
        Endpoint.objects.update(url=f"https://127.0.0.1:{imposter.port}/hook")
        tell(alice)
        send(sender)
        assert imposter.requests == []
    assert only(hook).status is None
    assert "certificate" in only(hook).error.lower()
