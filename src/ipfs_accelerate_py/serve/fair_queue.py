"""A bounded queue that is fair between clients: hosts take turns, and the clients of a host take turns within its turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Client(NamedTuple):
    """``host``: who is let in (an address). ``name``: who of that host, as it says itself; it can take turns only from its own host."""

    host: str
    name: str


class Full(Exception):
    """No room: of the whole queue, or of this client's part."""


class FairQueue(Generic[Item]):
    """Items by client, first come first served within one. Not thread-safe: its owner holds a lock."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self.most = most
        self.most_per_client = most_per_client
        self._hosts: OrderedDict[str, OrderedDict[str, deque[Item]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, client: Client, item: Item, *, again: bool = False) -> None:
        """At the end of the client's line; ``again``, for one that was taken already, at its front and without a limit. Raises Full."""
        line = self._hosts.get(client.host, OrderedDict()).get(client.name, deque())
        if not again and self._length >= self.most:
            raise Full(f"{self._length} requests wait already, the most that this server keeps: try again later.")
        if not again and len(line) >= self.most_per_client:
            raise Full(f"{len(line)} of your requests wait already, the most for one client: wait for an answer first.")
        own = self._hosts.setdefault(client.host, OrderedDict()).setdefault(client.name, deque())
        if again:
            own.appendleft(item)
        else:
            own.append(item)
        self._length += 1

    def pop(self) -> Item:
        """The next one; its host and its client go to the end of their rounds. IndexError where there is none."""
        if not self._hosts:
            raise IndexError("the queue is empty")
        host, clients = next(iter(self._hosts.items()))
        name, line = next(iter(clients.items()))
        item = line.popleft()
        self._length -= 1
        self._rotate(clients, name, bool(line))
        self._rotate(self._hosts, host, bool(clients))
        return item

    def remove(self, client: Client, item: Item) -> bool:
        """Takes an item out; False where it does not wait."""
        clients = self._hosts.get(client.host, OrderedDict())
        line = clients.get(client.name)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._length -= 1
        if not line:
            del clients[client.name]
        if not clients:
            del self._hosts[client.host]
        return True

    @staticmethod
    def _rotate(round_: OrderedDict, key: str, stays: bool) -> None:  # type: ignore[type-arg]
        if stays:
            round_.move_to_end(key)
        else:
            del round_[key]
