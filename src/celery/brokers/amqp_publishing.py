"""Adapter. Publishing over AMQP: what a message becomes, confirms for many threads at once, servers that take nothing.

Threads that want their messages confirmed share one connection. Whoever finds it free writes what all have brought by
then, in one piece, and waits for all; who comes meanwhile goes with the next. So n threads cost one write and one sync
to disk, where each on its own would cost n, and a thread that is alone waits for nobody.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import (
    ASK,
    ASKED,
    CONFIRMING,
    RETURNED,
    Confirms,
    message_properties,
    publish,
    with_confirms,
)
from celery.drivers.amqp_errors import MissingQueue
from celery.drivers.amqp_frames import content, framed, packed
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp_routing import Destinations
    from celery.drivers.amqp import Endpoint, Link
    from celery.message import Form
    from celery.ports import Publication
    from celery.routing import Route

__all__ = ["PATIENCE", "Convoy", "NotTaking", "await_taking", "frames_of_message"]

#: Seconds that a server may take over what publishing asks of it.
PATIENCE = 8.0
#: Seconds that one waits for a server to take messages again.
_BLOCKED = 5.0
#: After so many seconds without a confirm the server is asked whether it still answers, and has so long for that.
_SILENCE, _SIGN = 1.5, 2.0


class NotTaking(OperationalError):  # type: ignore[misc]  # kombu ships no types
    """The server takes no messages now; nothing was sent."""


def await_taking(link: Link) -> None:
    """Wait until the server takes messages again, if it has said that it takes none. Raises `NotTaking`."""
    deadline = time.monotonic() + _BLOCKED
    while link.blocked:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise NotTaking(
                f"{link.shown} takes no messages now: {link.blocked} (waited {_BLOCKED:g} s). It is short of memory or "
                "of room on its disk: see its log, and let workers empty its queues"
            )
        link.wait(remaining)


def frames_of_message(link: Link, publication: Publication, destinations: Destinations) -> bytes:
    """The method and the message."""
    message, route = publication.message, publication.route
    if message.filled is not None:
        form, argsrepr, reply_to = message.filled
        kept = form.kept
        if type(kept) is not _Form or kept.route is not route:
            kept = form.kept = _Form(form, route)
        properties = kept.fill(message.id, argsrepr, reply_to)
        if properties is not None:
            return kept.head + framed(properties, message.body, link.frame_max)
    exchange, routing_key = destinations.address(link, publication)
    head = publish(exchange, routing_key, mandatory=bool(exchange))
    return head + content(message_properties(message), message.body, link.frame_max)


class _Form:
    """Properties and headers of messages of one kind, which differ in id, argsrepr and reply address.

    Made from the whole message that the form was made from, so that there is no second way to write one.
    """

    def __init__(self, form: Form, route: Route) -> None:
        self.route = route
        self.head = publish(route.exchange, route.routing_key, mandatory=bool(route.exchange))
        task_id, argsrepr, reply_to = form.marks
        properties = message_properties(form.kin)
        text = packed(properties)
        table = packed({"headers": properties["headers"]})[2:]
        self._size = len(table) - 4 - len(argsrepr)
        #: What has these lengths fits in; nothing else is ever given an id or an address.
        self._lengths = len(task_id), len(reply_to)
        before, found, after = text.partition(table)
        assert found
        holes = b"%(n)b" + table[4:].replace(b"%", b"%%").replace(_long_text(argsrepr), b"S%(a)b")
        text = before.replace(b"%", b"%%") + holes + after.replace(b"%", b"%%")
        self._text = text.replace(task_id.encode(), b"%(i)b").replace(reply_to.encode(), b"%(r)b")

    def fill(self, task_id: str, argsrepr: str, reply_to: str) -> bytes | None:
        """As they travel; None: an id or an address of another length."""
        identity, address, text = task_id.encode(), reply_to.encode(), argsrepr.encode("utf-8", "surrogatepass")
        if (len(identity), len(address)) != self._lengths:
            return None
        size = len(text)
        return self._text % {
            b"n": (self._size + size).to_bytes(4, "big"),
            b"a": size.to_bytes(4, "big") + text,
            b"i": identity,
            b"r": address,
        }


def _long_text(text: str) -> bytes:
    data = text.encode()
    return b"S" + len(data).to_bytes(4, "big") + data


class _Party:
    """What one thread wants to have published."""

    __slots__ = ("arrived", "error", "leads", "publications")

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        self.error: BaseException | None = None
        #: Its turn has come to write for all.
        self.leads = False
        self.arrived: threading.Event | None = None


class Convoy:
    """Publishes with confirms, for any number of threads. What fails fails only those whom it concerns."""

    def __init__(self, endpoint: Endpoint, confirmed_within: float, destinations: Destinations) -> None:
        """`confirmed_within`: seconds within which the server must have confirmed what was published."""
        self._endpoint = endpoint
        self._destinations = destinations
        self._within = confirmed_within
        self._lock = threading.Lock()
        self._waiting: list[_Party] = []
        self._led = False
        self._link: Link | None = None

    def publish(self, publications: Sequence[Publication]) -> None:
        """On return the server has confirmed them. Raises `OperationalError`, `ImproperlyConfigured`."""
        party = _Party(publications)
        with self._lock:
            self._waiting.append(party)
            if self._led:
                party.arrived = threading.Event()
            else:
                self._led = party.leads = True
        if party.arrived is not None:
            party.arrived.wait()
        if party.leads:
            self._lead()
        if party.error is not None:
            raise party.error

    def _lead(self) -> None:
        """Carry all that wait now, and hand on to the first that came meanwhile."""
        parties = self._embark()
        try:
            self._carry_all(parties)
        except BaseException as exc:  # each raises one of its own: a traceback is one thread's
            parties += self._embark()  # the server is away: nobody is to find that out after the others
            for party in parties:
                party.error = party.error or _like(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            with self._lock:
                successor = self._waiting[0] if self._waiting else None
                if successor is None:
                    self._led = False
                else:
                    successor.leads = True
            for party in parties if successor is None else (*parties, successor):
                if party.arrived is not None:
                    party.arrived.set()

    def _embark(self) -> list[_Party]:
        with self._lock:
            parties, self._waiting = self._waiting, []
        return parties

    def _carry_all(self, parties: Sequence[_Party]) -> None:
        """Together; if the server closes the connection over a message of one of them, each alone."""
        try:
            self._carry(parties)
        except (MissingQueue, ImproperlyConfigured):
            if len(parties) == 1:
                raise
            for party in parties:
                if party.error is None:
                    self._carry_alone(party)

    def _carry_alone(self, party: _Party) -> None:
        try:
            self._carry([party])
        except (OperationalError, ImproperlyConfigured) as exc:
            party.error = exc

    def _carry(self, parties: Sequence[_Party]) -> None:
        link = self._connected()
        frames: list[bytes] = []
        carried: list[_Party] = []
        for party in parties:
            try:
                if link.closed:
                    link = self._connected()
                for publication in party.publications:
                    self._destinations.ready(link, publication)
                written = [frames_of_message(link, one, self._destinations) for one in party.publications]
            except Exception as exc:
                if isinstance(exc, OperationalError) and not isinstance(exc, MissingQueue):
                    raise  # the line, and not the message
                party.error = exc  # raised in the thread that brought it
            else:
                frames += written
                carried.append(party)
        if not carried:
            return
        if link.closed:
            link = self._connected()
        await_taking(link)
        link.send(b"".join(frames))
        refused = self._confirmed(link, sum(len(party.publications) for party in carried))
        self._blame(carried, refused)

    @staticmethod
    def _blame(carried: Sequence[_Party], confirms: Confirms) -> None:
        start = 0
        for party in carried:
            end = start + len(party.publications)
            if any(start <= place < end for place in confirms.refused):
                party.error = OperationalError(confirms.complaint)
            start = end

    def _confirmed(self, link: Link, n: int) -> Confirms:
        """Wait until all are confirmed or refused. Raises `OperationalError`: then nobody knows."""
        confirms = Confirms(link, n)
        deadline = time.monotonic() + self._within
        asked = False
        while confirms.missing:
            remaining = deadline - time.monotonic()
            came = link.heard(CONFIRMING, min(remaining, _SILENCE))
            if came is not None and came.kind == RETURNED:
                self._destinations.came_back(came)
            elif came is not None:
                confirms.take(came)
            elif link.blocked:
                if remaining <= 0:  # kept open: it tells when that is over
                    raise OperationalError(
                        f"{link.shown} has not confirmed {len(confirms.missing)} of {n} messages within "
                        f"{self._within:g} s: it takes none now: {link.blocked}"
                    )
            elif remaining <= 0:
                link.hang_up()
                raise OperationalError(
                    f"{link.shown} has not confirmed {len(confirms.missing)} of {n} messages within {self._within:g} s"
                )
            elif not asked:
                asked = self._answers(link)
        return confirms

    @staticmethod
    def _answers(link: Link) -> bool:
        """Whether the line is alive, or the server takes nothing and has said so. Raises `OperationalError`."""
        link.send(ASK)
        if link.heard({ASKED}, _SIGN) is None and not link.blocked:
            link.hang_up()
            raise OperationalError(f"{link.shown} has not answered for {_SILENCE + _SIGN:g} s")
        return True

    def _connected(self) -> Link:
        link = self._link
        if link is not None and link.is_stale():
            link.hang_up()
        if link is None or link.closed:
            link = self._endpoint.connect()
            link.patience = PATIENCE
            self._link = link
        if link.published is None:
            with_confirms(link)
        link.inbox.clear()
        return link

    def hang_up(self) -> None:
        """Let go of the connection without a word."""
        if self._link is not None:
            self._link.hang_up()

    def close(self) -> None:
        """Part in good order, after whoever is on the way."""
        with self._lock:
            busy, link = self._led, self._link
            if not busy:
                self._link = None
        if link is not None and not busy:
            link.close()


def _like(exc: BaseException) -> BaseException:
    """One more of the same."""
    if isinstance(exc, OperationalError | ImproperlyConfigured):
        return type(exc)(*exc.args)
    return exc
