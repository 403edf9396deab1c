"""Ports: one provider each, any number of subscribers, each of them once."""

import pytest

from aitbc.core import ports


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(ports, "_providers", {})
    monkeypatch.setattr(ports, "_subscribers", ports.defaultdict(list))


def one():
    return 1


def two():
    return 2


def test_a_port_gives_its_provider():
    ports.provide("number", one)
    assert ports.get("number")() == 1
    assert ports.find("number") is one


def test_a_second_provider_is_refused_and_the_same_one_is_not():
    ports.provide("number", one)
    ports.provide("number", one)
    with pytest.raises(RuntimeError, match="number already has a provider"):
        ports.provide("number", two)
    assert ports.get("number") is one


def test_a_port_that_nobody_provides_says_so():
    with pytest.raises(RuntimeError, match="no installed app provides the port nothing"):
        ports.get("nothing")
    assert ports.find("nothing") is None


def test_subscribers_come_in_order_and_once():
    for function in (one, two, one):
        ports.subscribe("numbers", function)
    assert [function() for function in ports.subscribers("numbers")] == [1, 2]
    assert ports.subscribers("silence") == []


def test_the_list_of_subscribers_is_the_callers_own():
    ports.subscribe("numbers", one)
    ports.subscribers("numbers").clear()
    assert ports.subscribers("numbers") == [one]
