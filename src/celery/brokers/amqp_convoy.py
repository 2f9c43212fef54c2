"""Adapter. Publishing over AMQP with confirms, for any number of threads.

Threads share what goes over the line. Whoever finds nobody on the way writes what all have brought by then, in one
piece, and waits for the server; who comes meanwhile goes with the next. So n threads cost one write and one sync to
disk, where each on its own would cost n, and a thread that is alone waits for nobody. Where the server takes its time,
the next ones set out before the first have come back, each over a connection of its own.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import ASK, ASKED, CONFIRMING, RETURNED, Confirms, with_confirms
from celery.brokers.amqp_publishing import PATIENCE, await_taking, frames_of_message
from celery.drivers.amqp_errors import MissingQueue
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp_routing import Destinations
    from celery.drivers.amqp import Endpoint, Link
    from celery.ports import Publication

__all__ = ["Convoy"]

#: Connections that are on the way at a time, at most.
_MOST = 4
#: Seconds that one waits for those who are on the way before one sets out oneself.
_LONG = 0.01
#: Seconds for which a connection that was heard of counts as one that stands.
_FRESH = 0.005
#: After so many seconds without a confirm the server is asked whether it still answers, and has so long for that.
_SILENCE, _SIGN = 1.5, 2.0


class _Party:
    """What one thread wants to have published."""

    __slots__ = ("_gate", "error", "leads", "publications")

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        self.error: BaseException | None = None
        #: Its turn has come to write for all, over this connection.
        self.leads: _Carrier | None = None
        self._gate: threading.Lock | None = None

    def gather(self) -> None:
        """It waits to be told that it has arrived, or that it leads."""
        self._gate = threading.Lock()
        self._gate.acquire()

    def await_word(self, timeout: float = -1) -> bool:
        """Until it is told; whether it was, in so many seconds."""
        assert self._gate is not None
        return self._gate.acquire(timeout=timeout)

    def tell(self) -> None:
        if self._gate is not None:
            self._gate.release()


class Convoy:
    """Publishes with confirms, for any number of threads. What fails fails only those whom it concerns."""

    def __init__(self, endpoint: Endpoint, confirmed_within: float, destinations: Destinations) -> None:
        """`confirmed_within`: seconds within which the server must have confirmed what was published."""
        self._lock = threading.Lock()
        self._waiting: list[_Party] = []
        #: Those that are not on the way; the one that came back last goes first.
        self._free = [_Carrier(endpoint, confirmed_within, destinations) for _ in range(_MOST)]
        self._all = tuple(self._free)

    def publish(self, publications: Sequence[Publication]) -> None:
        """On return the server has confirmed them. Raises `OperationalError`, `ImproperlyConfigured`."""
        party = _Party(publications)
        with self._lock:
            self._waiting.append(party)
            if len(self._free) == _MOST:
                party.leads = self._free.pop()
            else:
                party.gather()
        if party.leads is None:
            self._await_turn(party)
        if party.leads is not None:
            self._lead(party.leads)
        if party.error is not None:
            raise party.error

    def _await_turn(self, party: _Party) -> None:
        """Until it has been carried, or leads: if those who are on the way take long, it sets out itself."""
        try:
            if not party.await_word(_LONG) and not self._sets_out(party):
                party.await_word()
        except BaseException:  # its thread was interrupted: nobody is to wait for it
            with self._lock:
                if party in self._waiting:
                    self._waiting.remove(party)
            if party.leads is not None:
                self._hand_on(party.leads)
            raise

    def _sets_out(self, party: _Party) -> bool:
        with self._lock:
            if self._free and party.leads is None and self._waiting and self._waiting[0] is party:
                party.leads = self._free.pop()
                return True
        return False

    def _lead(self, carrier: _Carrier) -> None:
        """Carry all that wait now, and hand on to the first that came meanwhile."""
        with self._lock:
            parties, self._waiting = self._waiting, []
        try:
            carrier.carry_all(parties)
        except BaseException as exc:  # each raises one of its own: a traceback is one thread's
            parties += self._left_behind()
            for party in parties:
                party.error = party.error or _like(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._hand_on(carrier)  # first: there is a way before it
            for party in parties:
                party.tell()

    def _left_behind(self) -> list[_Party]:
        """The server is away: nobody is to find that out after the others."""
        with self._lock:
            parties = [party for party in self._waiting if party.leads is None]
            self._waiting = [party for party in self._waiting if party.leads is not None]
        return parties

    def _hand_on(self, carrier: _Carrier) -> None:
        with self._lock:
            successor = self._waiting[0] if self._waiting else None
            if successor is None or successor.leads is not None:
                self._free.append(carrier)
                return
            successor.leads = carrier
        successor.tell()

    def hang_up(self) -> None:
        """Let go of the connections without a word."""
        for carrier in self._all:
            carrier.hang_up()

    def close(self) -> None:
        """Part in good order, but for whoever is on the way."""
        with self._lock:
            links = [carrier.parted() for carrier in self._free]
        for link in links:
            if link is not None:
                link.close()


class _Carrier:
    """One connection, and what goes over it at a time. One thread uses it."""

    def __init__(self, endpoint: Endpoint, confirmed_within: float, destinations: Destinations) -> None:
        self._endpoint = endpoint
        self._destinations = destinations
        self._within = confirmed_within
        self._link: Link | None = None

    def carry_all(self, parties: Sequence[_Party]) -> None:
        """Together; if the server closes the connection over a message of one of them, each alone."""
        try:
            self._carry(parties)
        except (MissingQueue, ImproperlyConfigured) as exc:
            if len(parties) == 1:  # its own, and nobody's who has gathered meanwhile
                parties[0].error = exc
                return
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
        if link is not None and time.monotonic() - link.heard_at > _FRESH and link.is_stale():
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

    def parted(self) -> Link | None:
        """The connection, which is another's to close."""
        link, self._link = self._link, None
        return link


def _like(exc: BaseException) -> BaseException:
    """One more of the same."""
    if isinstance(exc, OperationalError | ImproperlyConfigured):
        return type(exc)(*exc.args)
    return exc
