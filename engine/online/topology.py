"""Which node of a Redis Cluster holds which slot: learned from any of them, and again when that is in doubt."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import redis
import redis.exceptions

from engine.errors import Unavailable
from engine.online.node import Node, Work
from engine.online.replies import text
from engine.online.share import SLOTS, numbers

log = logging.getLogger(__name__)

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
DEFAULT_PORT = 6379

#: How long all attempts to learn which node holds what may take, so that a read that waits for it ends in time.
LOOK_SECONDS = 0.15
SECONDS_BETWEEN_LOOKS = 0.25

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Master:
    """A master as a node knows it. slots: as Share has them, '' for none. is_moving: whether some of them are on their
    way, which only the node itself knows."""

    node: Node
    slots: str
    is_moving: bool


class Topology:
    """The nodes of the cluster that the servers of `url` belong to. May be shared by threads."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._seeds = [_address(part) for part in self._parts.netloc.rpartition("@")[2].split(",")]
        self._nodes: dict[Address, Node] = {}
        self._addresses: dict[Node, Address] = {}
        self._masters: list[Master] = []
        self._owners: list[Node | None] = []
        self._looking = threading.Lock()
        self._in_background = threading.Lock()
        self._looked_at = -SECONDS_BETWEEN_LOOKS

    def known(self) -> list[Master]:
        """The masters as of the last look; raises Unavailable when there was none and nobody tells."""
        if not self._masters:
            self._look_first()
        return self._masters

    def owner(self, slot: int) -> Node:
        """The node that holds the slot; raises Unavailable when none does."""
        if not self._owners:
            self._look_first()
        node = self._owners[slot]
        if node is None:
            self.doubt()
            raise Unavailable(f"No node of the Redis Cluster holds slot {slot}.")
        return node

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            node = Node(self._url(address), self.doubt)
            self._addresses[node] = address
            return self._nodes.setdefault(address, node)
        return self._nodes[address]

    def _url(self, address: Address) -> str:
        host, port = address
        who, at, _ = self._parts.netloc.rpartition("@")
        place = f"{who}{at}[{host}]:{port}" if ":" in host else f"{who}{at}{host}:{port}"
        return SplitResult(SCHEMES[self._parts.scheme], place, "/0", self._parts.query, "").geturl()

    def _look_first(self) -> None:
        """Look, unless another thread does or just has: all of them together wait no longer than one."""
        if not self._looking.acquire(timeout=LOOK_SECONDS):
            raise Unavailable("The online store does not answer: the nodes of the Redis Cluster are being looked for.")
        try:
            if self._owners:
                return
            if time.monotonic() - self._looked_at < SECONDS_BETWEEN_LOOKS:
                raise Unavailable("The online store does not answer: it did not a moment ago.")
            self._look_at_all("look", "look again")
        finally:
            self._looking.release()

    def look(self, *works: Work) -> list[Master]:
        """The masters, from the first node that tells; from now on commands go by it."""
        with self._looking:
            return self._look_at_all(*works)

    def _look_at_all(self, *works: Work) -> list[Master]:
        """With the time-outs of each kind of work in turn, for LOOK_SECONDS and the last one of them."""
        began = time.monotonic()
        failed = Unavailable("The online store does not answer: no node of the Redis Cluster is known.")
        nodes = sorted(dict.fromkeys(self._nodes_to_ask()), key=lambda node: node.is_held_to_be_down)
        try:
            for work, node in itertools.product(works, nodes):
                try:
                    masters = self._told_by(node, work)
                except Unavailable as error:
                    failed = error
                    if time.monotonic() - began > LOOK_SECONDS:
                        break
                else:
                    self._masters, self._owners = masters, _owners(masters)
                    return masters
            raise failed
        finally:
            self._looked_at = time.monotonic()

    def _nodes_to_ask(self) -> Iterator[Node]:
        known = [master.node for master in self._masters]
        yield from random.sample(known, len(known))
        yield from (self._node(address) for address in self._seeds)

    def asked_of(self, node: Node, work: Work) -> list[Master]:
        """The masters as this node knows them."""
        with node.asking():
            # By two words, of which redis-py makes nothing; not on a kept connection, since who looks may end soon.
            reply = node.clients[work].execute_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]
            lines = (text(reply) or b"").decode("utf-8", "replace").splitlines()
            own = self._addresses[node]
            try:
                return [self._master(line.split(), own) for line in lines if _is_master(line.split())]
            except (IndexError, ValueError) as error:
                raise redis.InvalidResponse("CLUSTER NODES was asked for, and something else was answered") from error

    def _told_by(self, node: Node, work: Work) -> list[Master]:
        masters = self.asked_of(node, work)
        if not any(master.slots for master in masters):  # it is new, or was started without what it knew
            raise Unavailable("A node of the Redis Cluster knows none that holds a slot.")
        return masters

    def _master(self, words: list[str], asked: Address) -> Master:
        host, _, port = words[1].partition("@")[0].rpartition(":")
        slots = ",".join(word for word in words[8:] if not word.startswith("["))
        is_moving = any(word.startswith("[") for word in words[8:])
        return Master(self._node((host.strip("[]") or asked[0], int(port))), slots, is_moving)

    def doubt(self) -> None:
        """Look again, in a thread of its own: the one that asks has waited long enough."""
        is_early = time.monotonic() - self._looked_at < SECONDS_BETWEEN_LOOKS
        if not is_early and self._in_background.acquire(blocking=False):
            threading.Thread(target=self._look_in_background, name="redis-cluster-look", daemon=True).start()

    def _look_in_background(self) -> None:
        try:
            self.look("look", "look again")
        except Unavailable as error:
            log.warning("the nodes of the Redis Cluster cannot be found out: %s", error.detail)
        finally:
            self._in_background.release()

    def moved(self, slot: int, node: Node) -> None:
        """Go by what a node said of one slot; what else has changed is looked for."""
        self._owners[slot] = node
        self.doubt()

    def named(self, error: redis.exceptions.AskError, asked: Node) -> Node:
        """The node that a redirection names; without a host it is that of the one which was asked."""
        return self._node((error.host.strip("[]") or self._addresses[asked][0], error.port))

    def close(self) -> None:
        with self._in_background:
            for node in list(self._nodes.values()):
                node.close()


def _is_master(words: list[str]) -> bool:
    flags = words[2].split(",")
    return "master" in flags and not {"noaddr", "handshake"} & set(flags)


def _owners(masters: Iterable[Master]) -> list[Node | None]:
    owners: list[Node | None] = [None] * SLOTS
    for master in masters:
        for slot in numbers(master.slots):
            owners[slot] = master.node
    return owners


def _address(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or DEFAULT_PORT
