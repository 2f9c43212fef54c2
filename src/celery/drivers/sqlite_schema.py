"""Adapter. The tables of a broker file, and the steps that bring an older file to them."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "MIGRATIONS", "VERSION"]

#: "Cely", in the header of every file of ours.
APPLICATION_ID = 0x43656C79

#: Statements of each step; step n brings a file from `user_version` n to n + 1. Never changed once released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # holder: 0 waits, -1 is parked until `due`, else the worker (holders.id) that has it in custody.
        # Its id is a message's place on its queue: kept while held, so that what is given back is next.
        """
        CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            queue TEXT NOT NULL,
            priority INTEGER NOT NULL DEFAULT 0,
            holder INTEGER NOT NULL DEFAULT 0,
            redelivered INTEGER NOT NULL DEFAULT 0,
            due REAL,
            envelope BLOB NOT NULL
        )
        """,
        "CREATE INDEX messages_waiting ON messages (queue, priority, id) WHERE holder = 0",
        "CREATE INDEX messages_held ON messages (holder) WHERE holder > 0",
        "CREATE INDEX messages_parked ON messages (due) WHERE holder = -1",
        # AUTOINCREMENT: the number of a dead worker is never given again.
        "CREATE TABLE holders (id INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL, pid INTEGER NOT NULL)",
        """
        CREATE TABLE bindings (
            exchange TEXT NOT NULL,
            kind TEXT NOT NULL,
            routing_key TEXT NOT NULL,
            queue TEXT NOT NULL,
            PRIMARY KEY (exchange, kind, routing_key, queue)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE results (id TEXT PRIMARY KEY, state TEXT NOT NULL, meta BLOB NOT NULL, expires REAL)",
        "CREATE INDEX results_expiring ON results (expires) WHERE expires IS NOT NULL",
    ),
    (  # parked messages are taken queue by queue
        "DROP INDEX messages_parked",
        "CREATE INDEX messages_parked ON messages (queue, due) WHERE holder = -1",
    ),
    (
        # deaths: how often the process died that had it; begun: it was redelivered, and its holder has begun to run it.
        "ALTER TABLE messages ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE messages ADD COLUMN begun INTEGER NOT NULL DEFAULT 0",
        # AUTOINCREMENT: the id of a letter that was requeued or purged is never given to another.
        """
        CREATE TABLE dead_letters (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            queue TEXT NOT NULL,
            priority INTEGER NOT NULL,
            deaths INTEGER NOT NULL,
            died_at REAL NOT NULL,
            size INTEGER NOT NULL,
            reason TEXT NOT NULL,
            traceback TEXT NOT NULL,
            envelope BLOB NOT NULL
        )
        """,
        # Holds all that the bounds are about, so that they are kept without reading a letter.
        "CREATE INDEX dead_letters_of_queue ON dead_letters (queue, id, size, died_at)",
    ),
    (
        # body: what is to be sent, once the barrier is full and until it is fired; claimed: until when somebody is
        # about to send it.
        """
        CREATE TABLE barriers (
            id TEXT PRIMARY KEY,
            size INTEGER,
            more INTEGER NOT NULL DEFAULT 0,
            arrived INTEGER NOT NULL DEFAULT 0,
            body BLOB,
            claimed REAL,
            done INTEGER NOT NULL DEFAULT 0,
            expires REAL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX barriers_full ON barriers (id) WHERE body IS NOT NULL",
        "CREATE INDEX barriers_expiring ON barriers (expires) WHERE expires IS NOT NULL",
        """
        CREATE TABLE arrivals (
            barrier TEXT NOT NULL,
            member TEXT NOT NULL,
            place REAL NOT NULL,
            part BLOB NOT NULL,
            PRIMARY KEY (barrier, member)
        ) WITHOUT ROWID
        """,
        "CREATE UNIQUE INDEX arrivals_in_order ON arrivals (barrier, place, member)",
        "CREATE TABLE groups (id TEXT PRIMARY KEY, meta BLOB NOT NULL, expires REAL) WITHOUT ROWID",
        "CREATE INDEX groups_expiring ON groups (expires) WHERE expires IS NOT NULL",
    ),
    (
        # AUTOINCREMENT: the number of a dead listener is never given again, nor is a notice's.
        "CREATE TABLE listeners (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        """
        CREATE TABLE mailboxes (
            listener INTEGER NOT NULL,
            name TEXT NOT NULL,
            exchange TEXT NOT NULL,
            kind TEXT NOT NULL,
            routing_key TEXT NOT NULL
        )
        """,
        # mailbox: the only one that is meant; NULL: whoever listens at the exchange.
        """
        CREATE TABLE notices (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            mailbox TEXT,
            exchange TEXT NOT NULL,
            told REAL NOT NULL,
            envelope BLOB NOT NULL
        )
        """,
        "CREATE INDEX notices_for_one ON notices (mailbox) WHERE mailbox IS NOT NULL",
    ),
    (
        # Queues that go with the last of those who take from them.
        """
        CREATE TABLE transient (
            queue TEXT NOT NULL,
            holder INTEGER NOT NULL,
            PRIMARY KEY (queue, holder)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX transient_of_holder ON transient (holder)",
    ),
)

VERSION = len(MIGRATIONS)
