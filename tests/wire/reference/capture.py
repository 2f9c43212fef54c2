"""What the Celery of this Python leaves in Redis for each form of message.

    python tests/wire/reference/capture.py redis://127.0.0.1:6399 [form …]

prints JSON: form → {"lists": {key: envelope}, "sets": {key: members}}. Database 0 is emptied before each form.
`golden.py` makes the golden files of it.
"""

from __future__ import annotations

import json
import os
import sys

import redis
from forms import FORMS, send


def capture(name: str, url: str) -> dict[str, object]:
    server = redis.Redis.from_url(url)
    server.flushdb()
    _in_child(name, url)
    found: dict[str, dict[str, object]] = {"lists": {}, "sets": {}}
    for key in sorted(server.scan_iter()):
        if server.type(key) == b"list":
            (envelope,) = server.lrange(key, 0, -1)
            found["lists"][key.decode()] = envelope.decode()
        elif server.type(key) == b"set":
            found["sets"][key.decode()] = sorted(member.decode() for member in server.smembers(key))
    server.close()
    return found


def _in_child(name: str, url: str) -> None:
    """In a process of its own: kombu remembers what it has declared for as long as the process lives."""
    child = os.fork()
    if not child:
        try:
            send(name, url)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"the call {name!r} failed")


if __name__ == "__main__":
    url, *names = sys.argv[1:]
    captured, failed = {}, {}
    send("elsewhere", f"{url}/1")  # loads what the children need, and declares nothing that they do
    for name in names or FORMS:
        try:
            captured[name] = capture(name, f"{url}/0")
        except Exception as exc:  # noqa: BLE001 - one form must not hide what is wrong with the next
            failed[name] = repr(exc)
    json.dump({"captured": captured, "failed": failed}, sys.stdout)
