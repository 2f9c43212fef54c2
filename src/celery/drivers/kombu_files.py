"""Adapter. kombu's `filesystem://`, made to lose nothing, with the same files.

kombu makes a file and then writes to it: whoever looks in between takes an empty one. Here a file is written under
another name, and renamed; and one that somebody else has made is left until it is written. kombu deletes what it takes:
here it is hidden until it is settled, under the name of whoever holds it, who has a lock for as long as he lives. Names
are in the order of sending, also within a millisecond.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import filesystem
from kombu.utils.json import dumps, loads

__all__ = ["Channel", "Transport"]

#: Seconds after which nobody is going to write to an empty file any more.
_GIVEN_UP = 60.0
#: Seconds between two looks at whether a holder has died.
_LOOK_AFTER = 1.0
#: Beginnings of hidden names: a file that is being written, a holder's lock, a message that he holds.
_PART, _HOLDER, _HELD = ".part-", ".holder-", ".held-"


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu ships no types
    """Puts messages where kombu looks for them: `<milliseconds>_<anything>.<queue>.msg` in `data_folder_out`."""

    #: kombu would put back at the end of a channel what was not acknowledged; we do, and if we cannot, others.
    do_restore = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Queues of which nothing is acknowledged.
        self._unheld: set[str] = set()
        self._custody: _Custody | None = None
        self._looked = 0.0

    # ------------------------------------------------------------------------------------------------------- putting

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        """On disk when it returns. Raises `OperationalError`."""
        folder = Path(self.data_folder_out)
        # Whoever takes a message from two queues has to tell them apart.
        payload = {**payload, "properties": {**payload["properties"], "delivery_tag": str(uuid.uuid4())}}
        milliseconds, rest = divmod(time.monotonic_ns(), 1_000_000)
        name = f"{milliseconds}_{rest:06}{uuid.uuid4().hex}.{queue}.msg"
        hidden = folder / f"{_PART}{uuid.uuid4().hex}"
        try:
            with hidden.open("wb") as file:
                file.write(dumps(payload).encode())
                file.flush()
                os.fsync(file.fileno())
            hidden.rename(folder / name)
        except OSError as exc:
            hidden.unlink(missing_ok=True)
            raise OperationalError(
                f"the broker filesystem:// cannot write to {folder} (transport option data_folder_out): {exc}"
            ) from exc

    # ------------------------------------------------------------------------------------------------------- taking

    def _get(self, queue: str) -> Any:
        """The oldest message, or `Empty`. Raises `OperationalError`, and ValueError for what is no JSON."""
        folder = Path(self.data_folder_in)
        if time.monotonic() - self._looked > _LOOK_AFTER:
            self._looked = time.monotonic()
            self._take_over(folder)
        for name in _of_queue(folder, queue):
            with suppress(FileNotFoundError, BlockingIOError):  # somebody else has taken it, or is writing
                payload = self._take(folder / name, queue)
                if payload is not None:
                    return payload
        raise Empty

    def _take(self, path: Path, queue: str) -> Any:
        """What a file says, which is ours now; None if it is not written yet."""
        with path.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)  # whoever writes there holds it
            text = file.read()
            if not text and time.time() - os.fstat(file.fileno()).st_mtime < _GIVEN_UP:
                return None
            if queue not in self._unheld:
                if self._custody is None:
                    self._custody = _Custody(path.parent)
                held = self._custody.hold(path)
            else:
                held = path
                self._away(path)
        try:
            payload = loads(text.decode())
            tag = payload["properties"]["delivery_tag"]
        except BaseException:
            if held is not path:
                self._away(held)
            raise
        if held is not path and self._custody is not None:
            self._custody.held[tag] = held
        return payload

    def _away(self, path: Path) -> None:
        """Delete a file that is done with, or put it where the options say (`store_processed`)."""
        if self.store_processed:
            folder = Path(self.processed_folder)
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / _own_name(path.name))
        else:
            path.unlink()

    def _size(self, queue: str) -> int:
        """How many wait; what is held does not."""
        return len(_of_queue(Path(self.data_folder_in), queue))

    def _purge(self, queue: str) -> int:
        """Drop all that wait; returns how many there were."""
        folder, dropped = Path(self.data_folder_in), 0
        for name in _of_queue(folder, queue):
            with suppress(FileNotFoundError):
                (folder / name).unlink()
                dropped += 1
        return dropped

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        (self._unheld.add if no_ack else self._unheld.discard)(queue)
        return super().basic_get(queue, no_ack=no_ack, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._unheld.add if no_ack else self._unheld.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    # ------------------------------------------------------------------------------------------------------ settling

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        if multiple and self._custody is not None:  # all that were taken before it too
            for tag in list(self._custody.held):
                self.basic_ack(tag)
                if tag == delivery_tag:
                    break
            return
        super().basic_ack(delivery_tag)
        self._done(delivery_tag)

    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        super().basic_reject(delivery_tag, requeue=requeue)  # puts a new file, if it is given back
        self._done(delivery_tag)

    def _done(self, tag: Any) -> None:
        path = None if self._custody is None else self._custody.held.pop(tag, None)
        if path is not None:
            with suppress(FileNotFoundError):
                self._away(path)

    def close(self) -> None:
        custody, self._custody = self._custody, None
        super().close()
        if custody is not None:
            self._put_back(custody.folder, custody.name)
            custody.close()

    def _take_over(self, folder: Path) -> None:
        """Put back what the dead held."""
        for name in _names(folder):
            if not name.startswith(_HOLDER) or (self._custody is not None and name == self._custody.lock.name):
                continue
            with suppress(FileNotFoundError, BlockingIOError), (folder / name).open("rb") as lock:
                flock(lock, LOCK_EX | LOCK_NB)
                self._put_back(folder, name.removeprefix(_HOLDER))

    def _put_back(self, folder: Path, holder: str) -> None:
        """Everything that a holder has, as redelivered; then forget him."""
        for name in sorted((name for name in _names(folder) if name.startswith(f"{_HELD}{holder}~")), key=_age):
            path = folder / name
            with suppress(FileNotFoundError, ValueError):
                queue = _own_name(name).partition(".")[2].removesuffix(".msg")
                self._put(queue, {**loads(path.read_text()), "redelivered": True})
                path.unlink()
        (folder / f"{_HOLDER}{holder}").unlink(missing_ok=True)


class _Custody:
    """What one channel holds, and the lock that tells that it lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        self.lock = folder / f"{_HOLDER}{self.name}"
        #: The hidden file of each delivery, in the order in which they came.
        self.held: dict[Any, Path] = {}
        part = folder / f"{_PART}{self.name}"
        self._file = part.open("wb")
        flock(self._file, LOCK_EX)
        part.rename(self.lock)

    def hold(self, path: Path) -> Path:
        """Hide a message's file under our name. Raises `FileNotFoundError` if somebody has it."""
        held = self.folder / f"{_HELD}{self.name}~{path.name}~"  # no name that kombu would look at
        path.rename(held)
        return held

    def close(self) -> None:
        """Hold nothing any more."""
        self._file.close()


class Transport(filesystem.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as exc:
        raise OperationalError(
            f"the broker filesystem:// cannot read {folder} (transport option data_folder_in): {exc}"
        ) from exc


def _of_queue(folder: Path, queue: str) -> list[str]:
    """Names of the files of messages that wait, the oldest first. `q` is not the end of `my.q`."""
    ending = f"{queue}.msg"
    return sorted((name for name in _names(folder) if name[0] != "." and name.partition(".")[2] == ending), key=_age)


def _own_name(name: str) -> str:
    """The name of a file before somebody held it."""
    return name.partition("~")[2].removesuffix("~") if name.startswith(_HELD) else name


def _age(name: str) -> tuple[int, str]:
    """Orders files by when they were sent."""
    name = _own_name(name)
    milliseconds = name.partition("_")[0]
    return int(milliseconds) if milliseconds.isdecimal() else 0, name
