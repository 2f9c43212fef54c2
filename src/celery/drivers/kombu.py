"""Adapter. Connections of kombu's, for brokers that have no adapter of their own: opened, named, and their errors ours.

A kombu transport is a library of others: whatever it raises when its server is away becomes `OperationalError`, and
what is missing to use it at all `ImproperlyConfigured`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kombu import Connection
from kombu.exceptions import OperationalError, SerializationError
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import parse_url

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery.ports import BrokerConfig

__all__ = ["Line", "address", "is_known", "is_local", "near", "open_line", "shown", "split_scheme"]

#: Before a scheme of which we have an adapter: kombu's transport is wanted all the same.
_PREFIX = "kombu+"
#: Scheme → what must be importable, and what installs it.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "azureservicebus": (("azure.servicebus",), "kombu[azureservicebus]"),
    "azurestoragequeues": (("azure.storage.queue",), "kombu[azurestoragequeues]"),
    "confluentkafka": (("confluent_kafka",), "kombu[confluentkafka]"),
    "consul": (("consul",), "celery[consul]"),
    "etcd": (("etcd",), "python-etcd"),
    "gcpubsub": (("google.cloud.pubsub_v1", "google.cloud.monitoring_v3"), "celery[gcpubsub]"),
    "kafka": (("confluent_kafka",), "kombu[confluentkafka]"),
    "mongodb": (("pymongo",), "celery[mongodb]"),
    "pgmq": (("pgmq",), "kombu[pgmq]"),
    "pyro": (("Pyro4",), "celery[pyro]"),
    "qpid": (("qpid", "qpidtoollibs"), "kombu[qpid]"),
    "redis": (("redis",), "celery[redis]"),
    "rediss": (("redis",), "celery[redis]"),
    "sentinel": (("redis",), "celery[redis]"),
    "slmq": (("softlayer_messaging",), "celery[slmq]"),
    "sqla": (("sqlalchemy",), "celery[sqlalchemy]"),
    "sqlalchemy": (("sqlalchemy",), "celery[sqlalchemy]"),
    "sqs": (("boto3",), "celery[sqs]"),
    "zookeeper": (("kazoo",), "celery[zookeeper]"),
}
#: What `filesystem` means, unless somebody has put another in its place.
_FILES = "kombu.transport.filesystem:Transport"
#: `driver_type` of transports that look into files or into this process.
_LOCAL = frozenset({"memory", "filesystem", "sql"})
#: A transport by its class: not `host:port`.
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")
_PASSWORD = re.compile(r"(://[^/@:;]*):([^;]*)@")


class Line:
    """A connection and its channel, of one thread at a time."""

    def __init__(self, connection: Any, url: str) -> None:
        self.connection = connection
        #: The URL without its password.
        self.shown = shown(url)
        self._secrets = [found[1] for found in _PASSWORD.findall(url) if found[1]]
        #: Names of what was declared over it.
        self.declared: dict[str, Any] = {}
        self._channel: Any = None

    @property
    def channel(self) -> Any:
        """The channel; connects if there is none. Raises `OperationalError`."""
        if self._channel is None:
            with self.translated():
                self._channel = self.connection.channel()
        return self._channel

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What the transport raises for a server that is away, or that refuses, becomes `OperationalError`."""
        try:
            yield
        except (OperationalError, ImproperlyConfigured, SerializationError, TypeError):
            raise
        except ImportError as exc:
            raise ImproperlyConfigured(f"broker_url: {self.shown} needs a package: {exc}") from exc
        except Exception as exc:  # drivers raise much that their transports do not tell of
            raise OperationalError(self.told(exc)) from exc

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What the transport calls errors of connections and channels."""
        return (*_types(self.connection.connection_errors), *self.refusals, OSError)

    @property
    def refusals(self) -> tuple[type[BaseException], ...]:
        """What the transport calls errors of channels."""
        return _types(self.connection.channel_errors)

    def told(self, exc: BaseException) -> str:
        """What to say of an error."""
        text = str(exc) or type(exc).__name__
        for secret in self._secrets:
            text = text.replace(secret, "**")
        return f"the broker at {self.shown}: {text}"

    def close(self) -> None:
        """Close both, whatever state they are in. Idempotent."""
        self._channel = None
        with suppress(Exception):  # a broken connection may raise anything; it is given up either way
            self.connection.release()


def split_scheme(url: str) -> tuple[str, str]:
    """(transport as kombu knows it, the URL to give to kombu). A dotted name of a class before `://` is one too
    (`my.module:Transport://host`)."""
    url = url.removeprefix(_PREFIX)
    scheme, separator, rest = url.partition("://")
    if ":" in scheme:
        return scheme, f"{rest}" if separator else ""
    return scheme.partition("+")[0], url if separator else f"{scheme}://"


def is_known(scheme: str) -> bool:
    """Whether kombu has a transport for what stands before `://`, or was given one (`TRANSPORT_ALIASES`)."""
    name = scheme.removeprefix(_PREFIX)
    return bool(_CLASS.match(name)) or name.partition("+")[0] in TRANSPORT_ALIASES


def near(scheme: str, known: list[str]) -> str:
    """A question whether one of these was meant, or nothing."""
    found = get_close_matches(scheme, {*known, *TRANSPORT_ALIASES}, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def is_local(line: Line) -> bool:
    """Whether the transport looks into something on this machine, where a look never waits."""
    return getattr(line.connection.transport, "driver_type", None) in _LOCAL


def shown(url: str) -> str:
    """URLs without their passwords."""
    return _PASSWORD.sub(r"\1:**@", url)


def open_line(config: BrokerConfig) -> Line:
    """An unconnected line to where a configuration leads. Raises `ImproperlyConfigured`: there is no such transport,
    its package is missing, or it refuses its options."""
    parts = [split_scheme(url) for url in config.url.split(";")]
    transport = parts[0][0]
    needed, package = _NEEDS.get(transport.lower(), ((), ""))
    missing = [name for name in needed if not _is_installed(name)]
    if missing:
        raise ImproperlyConfigured(
            f"broker_url: the broker {transport}:// needs the package {missing[0]!r}; install it with "
            f"`pip install '{package}'`"
        )
    given: dict[str, Any] = {
        "transport_options": dict(config.options),
        "ssl": config.ssl,
        "connect_timeout": config.connect_timeout,
        "failover_strategy": config.failover,
    }
    if transport == "filesystem" and TRANSPORT_ALIASES[transport] == _FILES:
        from celery.drivers.kombu_files import Transport

        given["transport"] = Transport
    given |= address(config.url) if len(parts) == 1 else {"hostname": ";".join(url for _, url in parts)}
    try:
        connection = Connection(**given)
        connection.transport  # noqa: B018 - made here, connects nothing
    except Exception as exc:
        raise ImproperlyConfigured(
            f"broker_url: kombu's transport for {shown(config.url)} cannot be used: {type(exc).__name__}: {exc}"
        ) from exc
    return Line(connection, config.url)


def address(url: str) -> dict[str, Any]:
    """Arguments of a kombu connection for a URL as we write it: kombu knows no `kombu+`, and no class as a scheme."""
    transport, rest = split_scheme(url)
    if ":" not in transport:
        return {"hostname": rest}
    read = parse_url(f"memory://{rest}")  # any scheme that has parts
    parts = {name: read[name] for name in ("hostname", "userid", "password", "port", "virtual_host")}
    return {**parts, "transport": transport}


def _types(told: Iterable[Any]) -> tuple[type[BaseException], ...]:
    """A transport whose package is missing tells of None."""
    return tuple(each for each in told if isinstance(each, type))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
