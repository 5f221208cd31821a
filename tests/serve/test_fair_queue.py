"""Turns, bounds and removal in the queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipfs_accelerate_py.serve.fair_queue import Client, FairQueue, Full


def queue(*clients: str, most: int = 100, each: int = 100) -> FairQueue[str]:
    """Of items named after their clients, ``host/name``, and numbered."""
    made: FairQueue[str] = FairQueue(most, each)
    for number, client in enumerate(clients):
        host, name = client.split("/")
        made.push(Client(host, name), f"{client}{number}")
    return made


def test_clients_take_turns():
    """One with many requests does not keep the next ones waiting for all of them; within a client the order stays."""
    waiting = queue("h/a", "h/a", "h/a", "h/b", "h/c", "h/b")
    assert [waiting.pop() for _ in range(len(waiting))] == ["h/a0", "h/b3", "h/c4", "h/a1", "h/b5", "h/a2"]


def test_a_host_gains_nothing_by_many_names():
    """Twenty clients of one machine have one machine's share."""
    waiting = queue(*(f"crowd/{number}" for number in range(20)), "alone/x", "alone/x")
    order = [waiting.pop() for _ in range(4)]
    assert [item.split("/")[0] for item in order] == ["crowd", "alone", "crowd", "alone"]


def test_it_is_bounded():
    """The whole queue and each client's line; one that comes back needs no place and is the next of its client."""
    waiting = queue("h/a", "h/a", most=3, each=2)
    with pytest.raises(Full, match="2 of your requests wait"):
        waiting.push(Client("h", "a"), "third")
    waiting.push(Client("h", "b"), "b")
    with pytest.raises(Full, match="3 requests wait"):
        waiting.push(Client("h", "c"), "c")
    waiting.push(Client("h", "a"), "again", again=True)
    assert [waiting.pop() for _ in range(4)] == ["again", "b", "h/a0", "h/a1"]
    with pytest.raises(IndexError):
        waiting.pop()


@given(st.lists(st.tuples(st.sampled_from("hk"), st.sampled_from("abc")), max_size=20), st.data())
def test_nothing_is_lost(clients: list[tuple[str, str]], data: st.DataObject):
    """What is pushed comes out once, unless it was removed."""
    waiting = queue(*(f"{host}/{name}" for host, name in clients))
    items = [(Client(host, name), f"{host}/{name}{number}") for number, (host, name) in enumerate(clients)]
    removed = data.draw(st.lists(st.sampled_from(items), unique=True)) if items else []
    assert all(waiting.remove(*item) for item in removed)
    assert not any(waiting.remove(*item) for item in removed)
    assert sorted(waiting.pop() for _ in range(len(waiting))) == sorted(text for _, text in set(items) - set(removed))
