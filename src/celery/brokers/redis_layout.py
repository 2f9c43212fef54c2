"""Adapter. Which key holds what on Redis: kombu's layout (`[redis.1-8]`), and the few keys of our own beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from celery.brokers.bindings import matches, pattern_of
from celery.drivers.redis_url import truth
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery.routing import QueueSpec

__all__ = ["Channels", "Layout"]

#: Between a queue's name and its priority step, and between the parts of a binding.
SEPARATOR = "\x06\x16"
#: First part of the keys that are ours; the number changes with their format.
OURS = "celery.1."
#: Seconds of a lease: what a dead worker held is taken over within ten.
LEASE = 5.5


class Layout:
    """Names of keys under a `global_keyprefix` and kombu's transport options."""

    def __init__(self, options: Mapping[str, Any], prefix: str) -> None:
        self.prefix = prefix
        self.separator: str = options.get("sep") or SEPARATOR
        self.steps = sorted({0, *(int(step) for step in options.get("priority_steps") or (3, 6, 9))})
        unacked = options.get("unacked_key") or "unacked"
        self.unacked = prefix + unacked
        self.unacked_index = prefix + (options.get("unacked_index_key") or "unacked_index")
        self.mutex = prefix + (options.get("unacked_mutex_key") or "unacked_mutex")
        self.bindings = prefix + (options.get("keyprefix_queue") or "_kombu.binding.%s").removesuffix("%s")
        self.permanent = prefix + "_kombu.binding_permanent."
        self.deadlines = prefix + "_kombu.binding_deadlines"
        ours = prefix + OURS + ("" if unacked == "unacked" else unacked + ".")
        self.due = ours + "due"
        #: Sorted set of the bindings of those who listen for replies, by when they are not believed to live any more.
        self.ears = ours + "ears"
        self.holders = ours + "holders"
        self.leases = ours + "lease."
        #: Set of queues with dead letters; the streams are `<this>.<queue>`, their sizes in the hash `<this>-bytes`.
        self.dead = ours + "dead"
        #: Prefix of the sets of what goes with a holder: lists for what he hears (`heard_by`), and bindings.
        self.transient = ours + "transient."
        #: Prefix of the bindings of headers exchanges, which kombu has not on Redis: what is asked for, and the queue.
        self.headers = ours + "headers."
        #: Prefix of the sets of tags whose runs a holder has begun.
        self.begun = ours + "begun."
        #: Seconds after which kombu takes a message for abandoned (`[redis.8]`).
        self.visibility_timeout = float(options.get("visibility_timeout") or 3600)
        #: Seconds that a lease lasts unless it is renewed (ours, not kombu's). The keepers of the others take a holder
        #: for dead 1.4 to 1.7 times as long after its last renewal.
        self.lease = float(options.get("lease_timeout") or LEASE)
        #: Seconds between looks for messages past their visibility timeout, and how many one look restores.
        self.sweep_every = float(options.get("unacked_restore_interval") or 10)
        self.sweep_most = int(options.get("unacked_restore_limit") or 100)
        #: Queues are emptied in this order; None: an equal share is taken of each.
        self.order = _order(options.get("queue_order_strategy"))
        #: First arguments of the scripts that begin with entries.lua.
        self.arguments = (
            self.unacked, self.unacked_index, self.due, prefix, self.separator,
            ",".join(map(str, self.steps)), self.bindings,
        )  # fmt: skip
        self._suffixes = [self._suffix(priority) for priority in range(256)]

    def list_of(self, queue: str, priority: int) -> str:
        """The list that takes a queue's messages of this priority: the greatest step not above it (`[redis.2]`)."""
        if not priority:
            return self.prefix + queue
        return self.prefix + queue + self._suffixes[min(max(priority, 0), 255)]

    def lists(self, queue: str) -> list[str]:
        """All lists of a queue, in the order of consumption."""
        return [self.list_of(queue, step) for step in self.steps]

    def binding(self, queue: QueueSpec) -> str:
        """The member that stands for a queue in the binding set of its exchange (`[redis.4]`)."""
        pattern = _topic_regex(queue.routing_key) if queue.exchange_type == "topic" else ""
        return self.separator.join((queue.routing_key, pattern, queue.name))

    def bound(self, queue: QueueSpec) -> list[tuple[str, str]]:
        """The sets that say how a queue is bound, and its members there."""
        found = []
        for binding in () if queue.no_declare else queue.bound:
            exchange = binding.exchange
            if exchange.type == "headers":
                found.append((self.headers + exchange.name, self.separator.join((pattern_of(binding), queue.name))))
                continue
            expression = _topic_regex(binding.routing_key) if exchange.type == "topic" else ""
            member = self.separator.join((binding.routing_key, expression, queue.name))
            found += [(self.bindings + exchange.name, member), (self.permanent + exchange.name, member)]
        return found

    def route(self, members: Iterable[bytes], routing_key: str) -> list[str]:
        """The queues among an exchange's bindings that take a routing key, each once.

        By AMQP's rule, as on other brokers: kombu's expression for `a.#` does not match `a`.
        """
        found: dict[str, None] = {}
        for member in members:
            key, expression, queue = member.decode().split(self.separator, 2)
            if matches("topic" if expression else "direct", key, routing_key):
                found[queue] = None
        return list(found)

    def route_headers(self, members: Iterable[bytes], headers: Mapping[str, Any]) -> list[str]:
        """The queues among a headers exchange's bindings that take a message with these headers, each once."""
        pairs = (member.decode().split(self.separator, 1) for member in members)
        return list(dict.fromkeys(queue for pattern, queue in pairs if matches("headers", pattern, "", headers)))

    def heard_by(self, holder: str, queue: str) -> str:
        """The queue of a holder's own for what he hears on a fanout exchange: it is everybody's, each his copy."""
        return f"{OURS}heard.{holder}|{queue}"

    @staticmethod
    def shown(queue: str) -> str:
        """A queue's name as its owner gave it."""
        return queue.partition("|")[2] if queue.startswith(OURS + "heard.") else queue

    def _suffix(self, priority: int) -> str:
        step = max(step for step in self.steps if step <= priority)
        return f"{self.separator}{step}" if step else ""


class Channels:
    """Names of channels under kombu's transport options (`[redis.12]`)."""

    def __init__(self, options: Mapping[str, Any], key_prefix: str, db: int, *, sentinel: bool = False) -> None:
        given = options.get("fanout_prefix", True)
        prefix = given if isinstance(given, str) else "/{db}." if given else ""
        self._prefixes = [key_prefix + prefix.replace("{db}", str(db))]
        if sentinel and "{db}" in prefix and truth(options.get("sentinel_fanout_compat")):
            # Older kombu leaves the name as it is behind Sentinels: both are used, for a while of change.
            self._prefixes.append(key_prefix + prefix)
        self._by_key = truth(options.get("fanout_patterns", True))

    @property
    def several(self) -> bool:
        """Whether each notice comes over more than one channel."""
        return len(self._prefixes) > 1

    def of(self, exchange: str, routing_key: str) -> list[str]:
        """Where a notice is published."""
        name = f"{exchange}/{routing_key}" if self._by_key and routing_key else exchange
        return [prefix + name for prefix in self._prefixes]

    def all_of(self, exchange: str) -> list[str]:
        """What one subscribes to for everything of an exchange, whatever the routing key."""
        name = re.sub(r"([\[\]?*\\])", r"\\\1", exchange)
        return [*self.of(name, ""), *self.of(name, "*")] if self._by_key else self.of(exchange, "")

    def patterns(self, mailbox: QueueSpec) -> list[str]:
        """What a mailbox subscribes to: no less than its exchange hands it."""
        return self.of(mailbox.exchange, mailbox.routing_key.replace("#", "*"))


def _topic_regex(routing_key: str) -> str:
    """kombu's expression of a topic pattern: a star is one word, a hash any rest."""
    words = {"*": r"[^\.]+", "#": ".*?"}
    return "^" + r"\.".join(words.get(word, word) for word in routing_key.split(".")) + "$"


def _order(strategy: Any) -> Callable[[list[str]], list[str]] | None:
    """`queue_order_strategy` (`[route.19]`). Raises `ImproperlyConfigured` for an unknown one."""
    strategies: dict[str, Callable[[list[str]], list[str]] | None] = {
        "round_robin": None, "priority": list, "sorted": sorted,
    }  # fmt: skip
    try:
        return strategies[strategy or "round_robin"]
    except (KeyError, TypeError):
        raise ImproperlyConfigured(
            f"queue_order_strategy: expected one of {', '.join(strategies)}; got {strategy!r}"
        ) from None
