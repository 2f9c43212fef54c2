"""A TCP proxy before a server that can be told to misbehave: in a thread, for any number of connections."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["FaultProxy"]

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Pair:
    """A client's connection and ours to the server. What it was told to do with each direction counts for its life."""

    def __init__(self, client: socket.socket, server: socket.socket | None) -> None:
        self.client = client
        self.server = server
        #: Bytes of this direction are read and thrown away.
        self.deaf = self.mute = server is None

    def close(self, *, reset: bool = False) -> None:
        for end in (self.client, self.server):
            if end is not None:
                if reset:
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                end.close()


class FaultProxy:
    """Listens on `port` and passes bytes on to `target`. A context manager. Every fault is in force on return."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._reader, self._writer = os.pipe()
        self._selector.register(self._reader, selectors.EVENT_READ, None)
        self._pairs: list[Pair] = []
        self._orders: list[tuple[Callable[[], None], threading.Event]] = []
        self._swallowing = self._closed = False
        self._frozen = False
        #: Connections accepted so far.
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    # -- faults ------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """End all connections with a reset; new ones work."""
        self._order(self._reset)

    def half_open(self) -> None:
        """All connections stay up, but nothing passes through them any more; new ones work."""
        self._order(lambda: self._silence(deaf=True, mute=True))

    def lose_answers(self) -> None:
        """What comes over the connections that there are still reaches the server; its answers are lost."""
        self._order(lambda: self._silence(deaf=False, mute=True))

    def swallow(self, on: bool = True) -> None:
        """Connections, the new ones too, are accepted and never answered."""

        def do() -> None:
            self._swallowing = on
            if on:
                self._silence(deaf=True, mute=True)

        self._order(do)

    def freeze(self, on: bool = True) -> None:
        """Nothing moves, and nothing is lost: it all arrives when the proxy thaws."""
        self._order(lambda: setattr(self, "_frozen", on))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _order(self, do: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((do, done))
        os.write(self._writer, b"!")
        assert done.wait(10), "the proxy does not answer"

    def _serve(self) -> None:
        while not self._closed:
            ready = self._selector.select(0.05 if self._frozen else None)
            if any(key.fd == self._reader for key, _ in ready):
                os.read(self._reader, 512)
                while self._orders:
                    do, done = self._orders.pop(0)
                    do()
                    done.set()
            if self._frozen:
                self._wait_frozen()
                continue
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, Pair) and key.data in self._pairs:
                    self._pass_on(key.data, key.fileobj)  # type: ignore[arg-type]

    def _wait_frozen(self) -> None:
        """Until the next order."""
        with selectors.DefaultSelector() as orders:
            orders.register(self._reader, selectors.EVENT_READ)
            orders.select()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        server: socket.socket | None = None
        if not self._swallowing:
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                Pair(client, None).close(reset=True)
                return
        pair = Pair(client, server)
        self._pairs.append(pair)
        for end in (client, server):
            if end is not None:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(10)
                self._selector.register(end, selectors.EVENT_READ, pair)

    def _pass_on(self, pair: Pair, end: socket.socket) -> None:
        other, dropped = (pair.server, pair.deaf) if end is pair.client else (pair.client, pair.mute)
        try:
            data = end.recv(1 << 16)
            if data and not dropped and other is not None:
                other.sendall(data)
        except OSError:
            data = b""
        if data:
            return
        if pair.deaf or pair.mute:
            self._selector.unregister(end)  # the other side must not learn of it
            if end is pair.client:
                self._drop(pair)
        else:
            self._drop(pair)

    def _drop(self, pair: Pair, *, reset: bool = False) -> None:
        for end in (pair.client, pair.server):
            if end is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
        pair.close(reset=reset)
        self._pairs.remove(pair)

    def _reset(self) -> None:
        for pair in list(self._pairs):
            self._drop(pair, reset=True)

    def _silence(self, *, deaf: bool, mute: bool) -> None:
        for pair in self._pairs:
            pair.deaf, pair.mute = pair.deaf or deaf, pair.mute or mute

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        os.write(self._writer, b"!")
        self._thread.join(10)
        self._reset()
        self._selector.close()
        self._listener.close()
        os.close(self._reader)
        os.close(self._writer)
