"""Adapter. Notices on Redis, in kombu's layout: channels for all, lists for replies (`[redis.11]`, `[redis.22]`).

What a listener leaves on the server while it lives: a member in the bindings of an exchange of replies, and one in a
list of our own of who listens. A closed listener takes both away; of one that was killed, others do within minutes.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hiredis

from celery import exceptions
from celery.brokers.bindings import matches
from celery.brokers.notices import MalformedNotice, from_envelope, to_envelope
from celery.brokers.redis_ears import ROUND, ChannelEar, Ear, lost
from celery.drivers.redis_pool import run
from celery.drivers.redis_scripts import Script
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.brokers.redis_layout import Channels, Layout
    from celery.drivers.redis import Command, Endpoint, Link
    from celery.drivers.redis_pool import LinkPool
    from celery.ports import Notice
    from celery.routing import QueueSpec

__all__ = ["RedisListener", "tell"]

logger = logging.getLogger("celery.brokers.redis")

EAR = Script(Path(__file__).parent / "lua" / "ear.lua")
#: Milliseconds after which kombu forgets the bindings of an exchange to which nobody binds any more.
_KOMBU_KEEPS = 3_600_000
#: Milliseconds for which a listener is believed to live after it has last said so.
_BELIEVED = 60_000
#: Milliseconds that a reply waits for whoever asked.
REPLY_KEPT = 60_000


def tell(pool: LinkPool, layout: Layout, channels: Channels, notices: Sequence[Notice]) -> int | None:
    """See `Broadcasting.tell`: a round trip, and one more for the bindings of exchanges of replies.

    The server counts who hears a channel. Where each notice is published to two, whoever hears both counts twice.
    """
    if not notices:
        return 0
    link = pool.take()
    try:
        direct = list(dict.fromkeys(n.exchange for n in notices if n.exchange_type == "direct"))
        found = run(link, [("SMEMBERS", layout.bindings + exchange) for exchange in direct]) if direct else []
        bound = dict(zip(direct, found, strict=True))
        commands: list[Command] = []
        for notice in notices:
            if notice.exchange_type != "direct":
                envelope, names = to_envelope(notice), channels.of(notice.exchange, notice.routing_key)
                commands += [("PUBLISH", name, envelope) for name in names]
                continue
            for queue in layout.route(bound[notice.exchange], notice.routing_key):
                key = layout.list_of(queue, 0)
                commands += [("LPUSH", key, to_envelope(notice)), ("PEXPIRE", key, REPLY_KEPT)]
        answers = run(link, commands) if commands else []
    finally:
        pool.give_back(link)
    told = 0
    for command, answer in zip(commands, answers, strict=True):
        told += answer if command[0] == "PUBLISH" else command[0] == "LPUSH"
    return None if channels.several and told else told


class RedisListener:
    """See `ports.Listener`. A connection for channels and one for lists, as far as there are mailboxes of the kind.

    It asks the server for a sign of life every ten seconds, while it is heard: of one that has gone it tells within 20.
    """

    def __init__(self, pool: LinkPool, layout: Layout, channels: Channels, mailboxes: Sequence[QueueSpec]) -> None:
        self._ears: list[Ear[Notice]] = []
        told = [mailbox for mailbox in mailboxes if mailbox.exchange_type != "direct"]
        asked = [mailbox for mailbox in mailboxes if mailbox.exchange_type == "direct"]
        try:
            if told:
                self._ears.append(_NoticeEar(pool.endpoint, channels, told))
            if asked:
                self._ears.append(_ListEar(pool, layout, asked))
        except BaseException:
            self.close()
            raise

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """See `Listener.hear`."""
        deadline = time.monotonic() + timeout
        while True:
            heard: list[Notice] = []
            for ear in self._ears:
                heard += ear.collect()
            now = time.monotonic()
            if heard or now >= deadline:
                return heard
            patience = min((ear.keep(now) for ear in self._ears), default=timeout)
            watched = [ear.fileno() for ear in self._ears]
            ready = wait_readable([*watched, *until_readable], min(deadline - now, patience))
            if any(fd in until_readable for fd in ready):
                deadline = now  # once more round for what has come

    def close(self) -> None:
        """See `Listener.close`."""
        for ear in self._ears:
            ear.close()


class _NoticeEar(ChannelEar["Notice"]):
    """Hears notices."""

    def __init__(self, endpoint: Endpoint, channels: Channels, mailboxes: Sequence[QueueSpec]) -> None:
        self._mailboxes = [(mailbox, [name.encode() for name in channels.patterns(mailbox)]) for mailbox in mailboxes]
        patterns = [pattern.decode() for _, patterns in self._mailboxes for pattern in patterns]
        super().__init__(endpoint, patterns, repeated=channels.several)

    def read(self, pattern: bytes, envelope: bytes) -> Notice | None:
        """The notice, if this pattern belongs to the first mailbox that takes it: patterns may overlap."""
        notice = _read(envelope, "fanout")
        if notice is None:
            return None
        for mailbox, its_patterns in self._mailboxes:
            if mailbox.exchange == notice.exchange and _takes(mailbox, notice.routing_key):
                notice.exchange_type = mailbox.exchange_type
                return notice if pattern in its_patterns and self.is_new(envelope) else None
        return None


class _ListEar(Ear["Notice"]):
    """Takes replies from lists, waiting for them in the server (`BRPOP`)."""

    def __init__(self, pool: LinkPool, layout: Layout, mailboxes: Sequence[QueueSpec]) -> None:
        super().__init__(pool.endpoint)
        self._allowed = ROUND + pool.endpoint.timeout
        self._pool = pool
        self._layout = layout
        self._mailboxes = list(mailboxes)
        self._keys = [layout.list_of(mailbox.name, 0) for mailbox in mailboxes]
        #: When (monotonic) we last said that we are there.
        self._signed_at = 0.0
        #: What each answer to come is for: "bind", "pop", "all" (a list as it was), or nothing.
        self._expected: deque[str] = deque()
        self.open()

    def begin(self, link: Link) -> None:
        self._expected.clear()
        run(link, self._signs(by_digest=True))
        self._signed_at = time.monotonic()
        self.ask(link)
        self._asked_at = time.monotonic()

    def ask(self, link: Link) -> None:
        """Wait for what comes next; say now and then that we are still there."""
        now, signs = time.monotonic(), []
        if now - self._signed_at >= ROUND:
            self._signed_at, signs = now, self._signs(by_digest=False)
        self._expected.extend(["bind"] * len(signs) + ["pop"])
        link.send([*signs, ("BRPOP", *self._keys, int(ROUND))])

    def _signs(self, *, by_digest: bool) -> list[Command]:
        layout = self._layout
        by_exchange: dict[str, list[str]] = {}
        for mailbox in self._mailboxes:
            by_exchange.setdefault(mailbox.exchange, []).append(layout.binding(mailbox))
        signs: list[Command] = []
        for exchange, members in by_exchange.items():
            keys: Command = (layout.bindings + exchange, layout.deadlines, layout.ears)
            arguments: Command = (layout.bindings, layout.separator, exchange, _KOMBU_KEEPS, _BELIEVED, *members)
            signs.append(EAR.call(keys, arguments) if by_digest else ("EVAL", EAR.body, len(keys), *keys, *arguments))
        return signs

    def take(self, items: Iterable[Any]) -> Iterable[Notice]:
        heard: list[Notice] = []
        for item in items:
            if isinstance(item, hiredis.ReplyError):
                assert self._link is not None
                raise lost(self._link.refusal(str(item)))
            what = self._expected.popleft()
            if what == "all":
                heard += self._read_all(reversed(item[0]))
            elif what == "pop":
                self._asked_at, self._next = None, time.monotonic()
                if item is not None:
                    heard += self._read_all([item[1]])
                    self._fetch_rest(item[0])
        return heard

    def _fetch_rest(self, key: bytes) -> None:
        """Where one reply is there are more."""
        assert self._link is not None
        self._link.send([("MULTI",), ("LRANGE", key, 0, -1), ("DEL", key), ("EXEC",)])
        self._expected.extend(["", "", "", "all"])

    def _read_all(self, envelopes: Iterable[bytes]) -> list[Notice]:
        return [notice for envelope in envelopes if (notice := _read(envelope, "direct")) is not None]

    def close(self) -> None:
        if self._closed:
            return
        mine = self._link is None or self._link.pid == os.getpid()
        super().close()
        if not mine:
            return
        layout = self._layout
        commands: list[Command] = [("DEL", *self._keys)]
        for mailbox in self._mailboxes:
            member = layout.binding(mailbox)
            commands.append(("SREM", layout.bindings + mailbox.exchange, member))
            commands.append(("ZREM", layout.ears, mailbox.exchange + layout.separator + member))
        with suppress(exceptions.OperationalError):  # then others take it away
            self._pool.run(commands)


def _takes(mailbox: QueueSpec, routing_key: str) -> bool:
    """On Redis a fanout exchange heeds routing keys, as patterns, where a mailbox has one (`[redis.11]`)."""
    kind = "topic" if mailbox.routing_key else mailbox.exchange_type
    return matches(kind, mailbox.routing_key, routing_key)


def _read(envelope: bytes, exchange_type: str) -> Notice | None:
    """Anybody may publish to a channel: what is no notice is told of, and passed over."""
    try:
        return from_envelope(envelope, exchange_type)
    except MalformedNotice as exc:
        logger.warning("A notice cannot be read, and is passed over: %s", exc)
        return None
