"""Adapter. One SQLite file: opening, migrating and guarding it; what its broker and its result backend share.

Needs SQLite 3.35 (`RETURNING`). Three rules of SQLite shape what stands here. A connection must not cross a fork:
all are closed before one and opened again when next needed. Closing any descriptor of a file drops the POSIX locks that
the process has on it: nobody but SQLite ever opens the file itself, and there is one descriptor of the lock file. WAL
needs shared memory: network file systems are refused.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qsl, unquote
from weakref import WeakSet, WeakValueDictionary

from celery import exceptions
from celery.drivers.sqlite_schema import APPLICATION_ID, MIGRATIONS, VERSION
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any

__all__ = ["File", "Handle", "Watch", "file_of", "file_system", "options_of"]

DEFAULT_NAME = "celery.sqlite3"
#: Seconds that a write waits for the writers before it.
BUSY_TIMEOUT = 10.0
#: Seconds of waiting for other threads that count.
_SOME_TIME = 0.1
#: Bytes. A `delay()` writes two pages and waits for the disk: 1.08 times as many calls as Huey's with 4096, 0.9 times
#: with 8192, where claims and acks cost a third less (but they are batched).
PAGE_SIZE = 4096
#: Pages in the write-ahead log before they are copied to the file: 2 MB. Writing over a log is twice as fast as growing
#: it (an fsync then writes no metadata), so it had better reach its full size soon.
CHECKPOINT = 500
#: The same where there is little room: nothing can be copied any more once the log has taken it all.
LEAST_CHECKPOINT = 20
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
#: Nanoseconds; some ticks of the clock that files are stamped with.
YOUNG = 50_000_000
#: File systems on which locks or shared memory do not hold between machines.
NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs"}
    | {"fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
#: What no retry can mend; everything else may pass.
_HOPELESS = {
    sqlite3.SQLITE_AUTH: "not permitted",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that the directory exists and may be written to",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or move it away to begin with an empty one",
    sqlite3.SQLITE_NOTADB: "is no SQLite database: name another file, or move this one away",
    sqlite3.SQLITE_PERM: "may not be accessed: check its owner and mode",
    sqlite3.SQLITE_READONLY: "cannot be written to: check the owner and mode of the file and of its directory",
}
_PASSING = {
    sqlite3.SQLITE_BUSY: "other processes kept it locked for too long",
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write",
}


class File:
    """The file behind a `sqlite://` URL: there is one of these for each path in a process."""

    def __init__(self, path: str) -> None:
        #: Absolute, symbolic links resolved.
        self.path = path
        self.url_text = f"sqlite:///{path}"
        #: Notified when somebody in this process saves a record; `saves` counts.
        self.saved = threading.Condition(threading.Lock())
        self.saves = 0
        self._opening = threading.Lock()
        self._ready = False

    def connect(self, synchronous: str, timeout: float) -> sqlite3.Connection:
        """Open a connection; the first one makes or migrates the file.

        Raises `ImproperlyConfigured` where the file will never do, `OperationalError` where waiting may help.
        """
        with self._opening:
            if not self._ready or not self.inode():
                self._prepare(timeout)
            try:
                db = self._connect(timeout)
            except sqlite3.Error as exc:
                self.fail(exc)
            try:
                self._version(db)  # another process may have migrated it since this one first looked
                db.execute(f"PRAGMA synchronous = {synchronous}")
                db.execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint()}")
            except BaseException as exc:
                db.close()
                if isinstance(exc, sqlite3.Error):
                    self.fail(exc)
                raise
            return db

    def _checkpoint(self) -> int:
        """Pages that the log may have: a twentieth of the free space, within bounds."""
        try:
            room = os.statvfs(os.path.dirname(self.path))
        except OSError:
            return CHECKPOINT
        return max(LEAST_CHECKPOINT, min(CHECKPOINT, room.f_bavail * room.f_frsize // PAGE_SIZE // 20))

    def fail(self, exc: sqlite3.Error) -> NoReturn:
        """Raise what the driver's error means to the callers of a broker or backend."""
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code in _HOPELESS:
            raise ImproperlyConfigured(f"{self.path} {_HOPELESS[code]} ({exc})") from exc
        raise exceptions.OperationalError(
            f"{self.url_text}: {_PASSING.get(code, 'the database refused')} ({exc})"
        ) from exc

    def inode(self) -> int:
        """Which file the path names now; 0: none. A number is not given again while a connection is open."""
        try:
            return os.stat(self.path).st_ino
        except OSError:
            return 0

    def told(self) -> None:
        """Wake the threads of this process that wait for records."""
        with self.saved:
            self.saves += 1
            self.saved.notify_all()

    def after_fork(self) -> None:
        """In a child: locks that other threads of the parent held would stay locked for ever."""
        self.saved = threading.Condition(threading.Lock())
        self._opening = threading.Lock()

    def _connect(self, timeout: float) -> sqlite3.Connection:
        # One thread at a time uses it, but not always the same one: hence no check.
        return sqlite3.connect(
            self.path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    def _prepare(self, timeout: float) -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            raise ImproperlyConfigured(f"{self.url_text} needs SQLite 3.35 or newer, this is {sqlite3.sqlite_version}")
        _refuse_network(self.path)
        self._create()
        deadline = time.monotonic() + timeout
        while True:
            try:
                db = self._connect(timeout)
                try:
                    self._migrate(db)
                finally:
                    db.close()
                self._ready = True
                return
            except sqlite3.Error as exc:
                # Changing to WAL does not wait by itself where several processes begin at once.
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    self.fail(exc)
                time.sleep(0.01)

    def _create(self) -> None:
        """Make an empty file that only its owner may read: messages hold arguments."""
        try:
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise ImproperlyConfigured(
                f"{self.path} cannot be made ({exc.strerror}): check that the directory exists and may be written to"
            ) from exc

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Bring the file to this version's tables. Raises `ImproperlyConfigured` if it is not ours or newer."""
        db.execute("BEGIN")  # what is read must be of one moment: another process may just be making the file
        version = self._version(db)
        db.execute("COMMIT")
        if version == VERSION:
            return
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # has an effect on an empty file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN EXCLUSIVE")
        try:
            for step in MIGRATIONS[self._version(db) :]:
                for statement in step:
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _version(self, db: sqlite3.Connection) -> int:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID and (
            application or version or db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        ):
            raise ImproperlyConfigured(
                f"{self.path} is an SQLite database of another program (application_id {application:#x}); "
                f"name a file of its own, such as sqlite:///{DEFAULT_NAME}"
            )
        if version > VERSION:
            raise ImproperlyConfigured(
                f"{self.path} was written by a newer celery (file format {version}, this one knows up to {VERSION}): "
                "upgrade this installation, or name another file"
            )
        return int(version)


class Handle:
    """A connection for one thread at a time, opened when first needed and closed before a fork.

    `with handle.writing as db` is a transaction that has the write lock from its beginning; `with handle.reading as db`
    is for single statements. Both raise `OperationalError` or `ImproperlyConfigured` in place of driver errors.

    Where somebody has removed or replaced the file, the next use opens the new one; a `pinned` handle, whose user holds
    something in the old one, raises `OperationalError` instead.
    """

    def __init__(
        self, file: File, synchronous: str = "NORMAL", timeout: float = BUSY_TIMEOUT, *, pinned: bool = False
    ) -> None:
        self.file = file
        #: Grows with each new connection: what was read of an older one (`data_version`) is void.
        self.generation = 0
        self.reading = _Reading(self)
        self.writing = _Writing(self)
        self._synchronous = synchronous
        self._timeout = timeout
        self._pinned = pinned
        #: The connection waits less than `timeout` for other processes.
        self._hurried = False
        self._inode = 0
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        _handles.add(self)

    def acquire(self) -> sqlite3.Connection:
        """The connection, for this thread alone until `release`. Raises `OperationalError` if others keep it too long.

        Who has waited for other threads has that much less time to wait for other processes.
        """
        waited = 0.0
        if not self._lock.acquire(False):
            began = time.monotonic()
            if not self._lock.acquire(timeout=self._timeout):
                raise exceptions.OperationalError(
                    f"{self.file.url_text}: other threads waited for the file for too long ({self._timeout:g} s)"
                )
            waited = time.monotonic() - began
        try:
            db = self._db
            if db is None or self._inode != self.file.inode():
                db = self._connect()
            if waited > _SOME_TIME or self._hurried:
                self._hurried = waited > _SOME_TIME
                db.execute(f"PRAGMA busy_timeout = {max(0, int((self._timeout - waited) * 1000))}")
        except BaseException:
            self._lock.release()
            raise
        return db

    def release(self) -> None:
        self._lock.release()

    def relieve(self, exc: BaseException | None) -> None:
        """After an error, before `release`: on a full disk, copy the log to the file and keep it short from now on."""
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL and self._db is not None:
            with suppress(sqlite3.Error):
                self._db.execute(f"PRAGMA wal_autocheckpoint = {LEAST_CHECKPOINT}")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        with self._lock:
            self._close()

    def before_fork(self) -> bool:
        """Close the connection and keep others from opening one; False if a thread does not let go of it in time."""
        if not self._lock.acquire(timeout=self._timeout + 1):
            return False
        self._close()
        return True

    def after_fork_in_child(self) -> None:
        """The inherited connection, if any, is neither used nor closed: either may hurt the parent's."""
        if self._db is not None:
            _abandoned.append(self._db)
        self._db = None
        self._lock = threading.Lock()

    def _connect(self) -> sqlite3.Connection:
        if self._db is not None and self._pinned:
            raise exceptions.OperationalError(
                f"{self.file.url_text}: the file was removed or replaced while it was in use"
            )
        self._close()
        self._db = self.file.connect(self._synchronous, self._timeout)
        self._inode = self.file.inode()
        self.generation += 1
        return self._db

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


class _Reading:
    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> sqlite3.Connection:
        return self._handle.acquire()

    def __exit__(self, kind: object, exc: BaseException | None, traceback: TracebackType | None) -> None:
        if exc is None:
            self._handle.release()
            return
        self._handle.relieve(exc)
        self._handle.release()
        if isinstance(exc, sqlite3.Error):
            self._handle.file.fail(exc)


class _Writing:
    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> sqlite3.Connection:
        db = self._handle.acquire()
        try:
            db.execute("BEGIN IMMEDIATE")
        except BaseException as exc:
            self._handle.release()
            if isinstance(exc, sqlite3.Error):
                self._handle.file.fail(exc)
            raise
        return db

    def __exit__(self, kind: object, exc: BaseException | None, traceback: TracebackType | None) -> None:
        handle = self._handle
        db = handle._db
        assert db is not None
        try:
            if exc is None:
                db.execute("COMMIT")
        except sqlite3.Error as error:
            exc = error
        finally:
            if db.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    db.execute("ROLLBACK")
            if exc is not None:
                handle.relieve(exc)
            handle.release()
        if isinstance(exc, sqlite3.Error):
            handle.file.fail(exc)


class Watch:
    """Sees whether anybody else has written since one last looked; for one thread, on one handle.

    SQLite knows (`PRAGMA data_version`), but asking it forty times a second is most of what an idle worker does. So it
    is asked only when the log's time of change has moved, or is so young that its clock tick may not be over.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._log = handle.file.path + "-wal"
        self._seen: tuple[int, int] | None = None
        self._stamp: int | None = None

    def quiet(self) -> bool:
        """True: certainly nothing was written since `changed` said no. Does not touch the database."""
        return self._stamp is not None and self._stamp == self._changed_at()

    def changed(self, db: sqlite3.Connection) -> bool:
        """Whether another connection has written since the last call; True after `forget` or a new connection."""
        stamp, now = self._changed_at(), time.time_ns()
        (number,) = db.execute("PRAGMA data_version").fetchone()
        before, self._seen = self._seen, (self._handle.generation, number)
        self._stamp = stamp if stamp is not None and now - stamp > YOUNG else None
        return self._seen != before

    def forget(self) -> None:
        """Look again: whatever was seen does not count."""
        self._seen = self._stamp = None

    def recheck(self) -> None:
        """Ask SQLite the next time, whatever the time of change says."""
        self._stamp = None

    def _changed_at(self) -> int | None:
        try:
            return os.stat(self._log).st_mtime_ns
        except OSError:
            return None


def file_of(url: str) -> File:
    """The file of a `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///` (`./celery.sqlite3`) URL."""
    rest = url.partition("://")[2].partition("?")[0]
    host, slash, path = rest.partition("/")
    if host or (path and not slash):
        raise ImproperlyConfigured(
            f"expected sqlite:///file (relative) or sqlite:////path/to/file (absolute), got {url!r}: a slash is missing"
        )
    path = unquote(path)
    if path == ":memory:":
        raise ImproperlyConfigured(f"{url!r}: worker and callers could not share it; within one process use memory://")
    path = os.path.realpath(path or DEFAULT_NAME)
    with _files_lock:
        file = _files.get(path)
        if file is None:
            file = _files[path] = File(path)
        return file


def options_of(url: str, options: Mapping[str, Any]) -> tuple[str, float]:
    """(synchronous, seconds to wait for other writers) from transport options or from the query of the URL."""
    merged = {**dict(parse_qsl(url.partition("?")[2])), **options}
    synchronous = str(merged.get("synchronous", "FULL")).upper()
    if synchronous not in SYNCHRONOUS:
        raise ImproperlyConfigured(f"option 'synchronous': expected one of {', '.join(SYNCHRONOUS)}, got {synchronous}")
    return synchronous, float(merged.get("timeout", BUSY_TIMEOUT))


def _refuse_network(path: str) -> None:
    kind = file_system(os.path.dirname(path))
    if kind in NETWORK_FILE_SYSTEMS:
        raise ImproperlyConfigured(
            f"{path} is on a network file system ({kind}), where SQLite's locks cannot be relied on: "
            "put it on a local disk, or use redis:// or amqp:// between machines"
        )


def file_system(directory: str) -> str:
    """The type of the file system of a directory, "" where the machine does not tell."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            mounts = [line.split() for line in lines]
    except OSError:
        return ""
    best, kind = "", ""
    for fields in mounts:
        point = fields[4].replace("\\040", " ")
        inside = directory == point or directory.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


_files: WeakValueDictionary[str, File] = WeakValueDictionary()
_files_lock = threading.Lock()
_handles: WeakSet[Handle] = WeakSet()
#: Connections of a parent: referenced for ever, so that garbage collection does not close them.
_abandoned: list[sqlite3.Connection] = []
_kept_for_fork: list[Handle] = []


def _before_fork() -> None:
    _kept_for_fork.extend(handle for handle in list(_handles) if handle.before_fork())


def _after_fork_in_parent() -> None:
    while _kept_for_fork:
        _kept_for_fork.pop().release()


def _after_fork_in_child() -> None:
    global _files_lock  # another thread may have held it
    _files_lock = threading.Lock()
    _kept_for_fork.clear()
    for handle in list(_handles):
        handle.after_fork_in_child()
    for file in list(_files.values()):
        file.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
