"""Wakes whoever waits for news of a topic, in this process and, through Redis, in all others."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

TAIL = "tail"
"""Topic that wakes whoever reads what other processes placed."""

Publish = Callable[[frozenset[str]], None]
"""Tells the other processes; must not block."""


class Bell:
    """Rings when a followed topic has news; remembers a ring until it is heard."""

    def __init__(self) -> None:
        self._rang = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits; from the event loop's thread."""
        self._rang = True
        self._wake()

    async def heard(self, timeout: float) -> bool:  # noqa: ASYNC109 - a bound of the wait, not an error
        """Wait for a ring, ``timeout`` seconds at most; whether there was one. One waits at a time.

        By a bare future and timer: thousands of streams wait all the time, and what asyncio offers
        for this makes a task for each.
        """
        if not self._rang:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        rang, self._rang = self._rang, False
        return rang

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Inbox(Bell):
    """A bell that also keeps which topics rang, for a follower that reads only what changed."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        self._topics: set[str] = set()

    def put(self, topic: str) -> None:
        """Note a topic that has news; from the event loop's thread."""
        self._topics.add(topic)
        self.ring()

    def take(self) -> set[str]:
        """The topics since the last call."""
        taken, self._topics = self._topics, set()
        return taken


Filled = TypeVar("Filled", bound=Inbox)


class Hub:
    """Topics and those who follow them. Carries no data: who is woken reads the database.

    A missed wake-up therefore costs time, never an event; every follower also looks by itself
    now and then.
    """

    def __init__(self) -> None:
        self._bells: dict[str, set[Bell]] = defaultdict(set)
        self._inboxes: set[Inbox] = set()
        self._reactions: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._reactions_to_each: list[tuple[str, Callable[[str], None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.publish: Publish = _nobody

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ring bells on ``loop`` from now on."""
        self._loop = loop

    def notify(self, topics: frozenset[str]) -> None:
        """Announce news to all processes; from any thread."""
        self._announce(topics, from_afar=False)
        self.publish(topics)

    def react(self, topic: str, reaction: Callable[[], None]) -> None:
        """Call ``reaction`` at news of ``topic``, at once and in the thread that announces them."""
        self._reactions[topic].append(reaction)

    def react_each(self, prefix: str, reaction: Callable[[str], None]) -> None:
        """The same for every topic that begins so; ``reaction`` is given the rest of it."""
        self._reactions_to_each.append((prefix, reaction))

    def ring(self, topics: frozenset[str]) -> None:
        """Announce within this process what another one has told; from any thread."""
        self._announce(topics, from_afar=True)

    def ring_here(self, topics: frozenset[str]) -> None:
        """Announce news that concern this process alone; from any thread."""
        if topics:
            self._announce(topics, from_afar=False)

    def _announce(self, topics: frozenset[str], *, from_afar: bool) -> None:
        for topic in topics & self._reactions.keys():
            for reaction in self._reactions[topic]:
                reaction()
        for prefix, react in self._reactions_to_each:
            for topic in topics:
                if topic.startswith(prefix):
                    react(topic.removeprefix(prefix))
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring, topics, from_afar)

    @contextmanager
    def follow(self, *topics: str) -> Iterator[Bell]:
        """A bell for these topics, as long as the block lasts."""
        bell = Bell()
        for topic in topics:
            self._bells[topic].add(bell)
        try:
            yield bell
        finally:
            for topic in topics:
                self._bells[topic].discard(bell)
                if not self._bells[topic]:
                    del self._bells[topic]

    @contextmanager
    def collect(self, prefix: str) -> Iterator[Inbox]:
        """What happens to all topics that begin so, as long as the block lasts."""
        with self.fill(Inbox(prefix)) as inbox:
            yield inbox

    @contextmanager
    def fill(self, inbox: Filled) -> Iterator[Filled]:
        """Put the topics into an inbox that begin with its prefix, as long as the block lasts."""
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes.discard(inbox)

    def _ring(self, topics: frozenset[str], from_afar: bool) -> None:
        if from_afar:
            topics |= {TAIL}
        for topic in topics:
            for bell in self._bells.get(topic, ()):
                bell.ring()
            for inbox in self._inboxes:
                if topic.startswith(inbox.prefix):
                    inbox.put(topic)


def _nobody(_topics: frozenset[str]) -> None:
    """Stands in until other processes can be told."""
