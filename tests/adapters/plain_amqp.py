"""A way to RabbitMQ on which it looks like a server that speaks AMQP 0-9-1 and nothing else.

It grants no extension, a prefetch count is one for all of a channel, as the standard has it, and whoever uses an
extension all the same is found out.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

__all__ = ["PlainProxy"]

#: Methods that the standard does not have.
_EXTENSIONS = {
    (85, 10): "confirm.select",
    (60, 120): "basic.nack",
    (40, 30): "exchange.bind",
    (40, 40): "exchange.unbind",
}
_START, _QOS = (10, 10), (60, 10)


class PlainProxy:
    """Listens on `port` for as long as it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Names of extensions that were used.
        self.used: list[str] = []
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with suppress(OSError), source.makefile("rb") as stream:
            if from_client:
                sink.sendall(stream.read(8))
            while head := stream.read(7):
                kind, channel, size = struct.unpack(">BHI", head)
                payload = stream.read(size)
                stream.read(1)
                if kind == 1:
                    method = struct.unpack(">HH", payload[:4])
                    payload = self._ask(method, payload) if from_client else self._tell(method, payload)
                sink.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _ask(self, method: tuple[int, ...], payload: bytes) -> bytes:
        if method in _EXTENSIONS:
            self.used.append(_EXTENSIONS[method])  # type: ignore[index]
        return payload[:10] + b"\x01" if method == _QOS else payload

    @staticmethod
    def _tell(method: tuple[int, ...], payload: bytes) -> bytes:
        """`connection.start` without its server's properties, where the extensions stand."""
        if method != _START:
            return payload
        length = int.from_bytes(payload[6:10], "big")
        return payload[:6] + b"\0\0\0\0" + payload[10 + length :]
