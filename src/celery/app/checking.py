"""Application. Whether an app is set up well: what `celery check` looks at, one room after the other."""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError, SerializerNotInstalled
from msgspec import DecodeError, Struct, json

from celery import codecs
from celery.app.adapters import all_urls, scheme_of
from celery.app.defaults import find_deprecated_settings
from celery.app.hazards import hazards
from celery.app.utils import sanitize_url, unknown_keys
from celery.exceptions import ImproperlyConfigured
from celery.ports import Broadcasting, Examinable, Finding
from celery.producer import new_id
from celery.routing import Binding, ExchangeSpec, QueueSpec
from celery.settings import BY_NAME, NEW_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.app.base import Celery

__all__ = ["Checked", "check"]

#: Seconds by which clocks may differ before dates in messages mean something else than was said.
_SKEW = 2.0


class Checked(Struct, frozen=True):
    """A finding, and where it was found."""

    #: "settings", "tasks", "broker", "results", "clocks" or "workers".
    room: str
    #: What was looked at, where there are several: a URL without its password, a node's name.
    place: str
    finding: Finding
    #: It did not answer.
    unreachable: bool = False


def check(app: Celery, timeout: float) -> Iterator[Checked]:
    """Look at everything, room by room; each finding is given as soon as it is known.

    `timeout`: seconds for each server, and for the workers.
    """
    try:
        app.conf.get("broker_url")
    except Exception as exc:  # noqa: BLE001 - a module of settings may raise anything
        yield Checked("settings", "", Finding("bad", f"they cannot be read: {type(exc).__name__}: {exc}"))
        return
    yield from _settings(app)
    yield from _tasks(app)
    usable = True
    for url in _broker_urls(app):
        for one in _server("broker", url, lambda url=url: _examine_broker(app, url), timeout):  # type: ignore[misc]
            usable = usable and one.finding.grade != "bad"
            yield one
    yield from _results(app, timeout)
    if usable:
        yield from _workers(app, timeout)


# -------------------------------------------------------------------------------------------------------- this side


def _settings(app: Celery) -> Iterator[Checked]:
    found = list(_of_settings(app))
    if not found:
        found = [Finding("good", "nothing unknown, deprecated or dangerous")]
    for finding in found:
        yield Checked("settings", "", finding)


def _of_settings(app: Celery) -> Iterator[Finding]:
    conf: Any = app.conf
    for text in unknown_keys(getattr(conf, "data", conf)):
        yield Finding("bad", text)
    for name in find_deprecated_settings(conf.without_defaults()):
        option = BY_NAME[name]
        yield Finding("doubtful", f"{name} is deprecated, and goes with version {option.remove_by}: use {option.alt}")
    for name in sorted(conf.deprecated_settings):
        yield Finding(
            "doubtful", f"{name} is a name from before Celery 4: write {NEW_NAME[name]} (see `celery upgrade settings`)"
        )
    for text in hazards(app, conf.task_soft_time_limit, conf.task_time_limit):
        yield Finding("doubtful", text)
    accepted = {str(name) for name in conf.accept_content or ()}
    if accepted & {"pickle", "application/x-python-serialize"}:
        yield Finding(
            "doubtful",
            "accept_content has pickle: whoever can write to the broker can run any code in the workers. Leave it out "
            "unless nobody else can",
        )


def _tasks(app: Celery) -> Iterator[Checked]:
    try:
        app.loader.import_default_modules()
        app.finalize()
    except Exception as exc:  # noqa: BLE001 - user code is imported
        yield Checked("tasks", "", Finding("bad", f"cannot be imported: {type(exc).__name__}: {exc}"))
        return
    names = [name for name in app.tasks if not name.startswith("celery.")]
    if names:
        text = f"{len(names)} {'task is' if len(names) == 1 else 'tasks are'} known"
        yield Checked("tasks", "", Finding("good", text))
    else:
        text = "no task is known: are its modules named by include or imports, or found by autodiscover_tasks?"
        yield Checked("tasks", "", Finding("doubtful", text))


# ---------------------------------------------------------------------------------------------------------- servers


def _broker_urls(app: Celery) -> list[str]:
    conf = app.conf
    given = [*all_urls(conf.broker_write_url), *all_urls(conf.broker_read_url)]
    first = scheme_of(given[0]) if given else ""
    if first == "sentinel":  # together they name one server
        return [";".join(dict.fromkeys(given))]
    whole = [url if "://" in url or not first else f"{first}://{url}" for url in given]
    return list(dict.fromkeys(whole)) or [""]


def _examine_broker(app: Celery, url: str) -> tuple[list[Finding], float | None]:
    scheme = scheme_of(url) if url else "amqp"
    broker: Any = app.assembly.open_broker(url)
    if isinstance(broker, Examinable):
        return list(broker.examine()), _skew(broker)
    if scheme == "memory":
        text = "messages live in one process, and die with it: for tests"
        return [Finding("good", text)], None
    return _examine_by_kombu(app, url), None


def _examine_by_kombu(app: Celery, url: str) -> list[Finding]:
    """Of what our adapter does not examine itself: whether it answers, and what it is."""
    with app.connection(url or None, connect_timeout=app.conf.broker_connection_timeout) as connection:
        try:
            connection.ensure_connection(max_retries=0)
        except connection.recoverable_connection_errors as exc:
            raise OperationalError(str(exc)) from exc
        told = getattr(connection.connection, "server_properties", None) or {}
        name, version = told.get("product"), told.get("version")
        found = [Finding("good", f"{name} {version} answers" if version else "it answers")]
        if name == "RabbitMQ" and str(version).partition(".")[0] in {"1", "2"}:
            found.append(Finding("bad", f"RabbitMQ {version} is too old: 3.8 or newer is needed"))
    return found


def _results(app: Celery, timeout: float) -> Iterator[Checked]:
    url = app.conf.result_backend
    if not url or str(url).startswith("disabled"):
        yield Checked("results", "", Finding("good", "none are kept (result_backend is not set)"))
        return
    yield from _server("results", str(url), lambda: _examine_results(app), timeout)


def _examine_results(app: Celery) -> tuple[list[Finding], float | None]:
    adapter: Any = app.assembly.adapter if app.assembly.store is app.assembly.adapter else None
    if isinstance(adapter, Examinable):
        return list(adapter.examine()), _skew(adapter)
    app.backend.get_task_meta(new_id())
    return [Finding("good", "it answers")], None


def _skew(server: Examinable) -> float | None:
    """Seconds by which the server's clock is ahead of ours."""
    began = time.time()
    told = server.server_time()
    return None if told is None else told - (began + time.time()) / 2


def _server(
    room: str, url: str, examine: Callable[[], tuple[list[Finding], float | None]], timeout: float
) -> Iterator[Checked]:
    """What is found at a URL, or that nothing answers there within the time."""
    place = sanitize_url(url, "**")
    try:
        found, skew = _within(timeout, examine)
    except TimeoutError:
        yield Checked(room, place, Finding("bad", f"does not answer within {timeout:g} s"), unreachable=True)
        return
    except (ImproperlyConfigured, ImportError, TypeError, ValueError, KeyError) as exc:
        yield Checked(room, place, Finding("bad", _without(url, str(exc))))
        return
    except Exception as exc:  # noqa: BLE001 - each driver raises its own
        text = _without(url, str(exc) or type(exc).__name__)
        yield Checked(room, place, Finding("bad", text), unreachable=True)
        return
    for finding in found:
        yield Checked(room, place, finding)
    if skew is not None:
        yield Checked("clocks", place, _of_clock("the server's clock", skew))


def _within(seconds: float, examine: Callable[[], Any]) -> Any:
    """What the function gives, or raises. Raises `TimeoutError` if it takes longer; it is then left to itself."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(examine())
        except BaseException as exc:  # noqa: BLE001 - raised by whoever waits
            future.set_exception(exc)

    Thread(target=run, daemon=True, name="celery-check").start()
    return future.result(seconds)


def _without(url: str, text: str) -> str:
    """The text without the URL's password, whoever has put it there."""
    for one in all_urls(url):
        text = text.replace(one, sanitize_url(one, "**"))
        password = one.partition("://")[2].rpartition("@")[0].partition(":")[2]
        text = text.replace(password, "**") if password else text
    return text


def _of_clock(whose: str, ahead: float) -> Finding:
    if abs(ahead) <= _SKEW:
        return Finding("good", f"{whose} agrees with ours (within {max(abs(ahead), 0.01):.2f} s)")
    word = "ahead of" if ahead > 0 else "behind"
    return Finding(
        "bad", f"{whose} is {abs(ahead):.1f} s {word} ours: eta, countdown and expires are off by that. Run NTP on both"
    )


# ---------------------------------------------------------------------------------------------------------- workers


def _workers(app: Celery, timeout: float) -> Iterator[Checked]:
    broker = app.assembly.broker_for_read
    if not isinstance(broker, Broadcasting):
        yield Checked("workers", "", Finding("good", "not asked: this broker carries no remote control"))
        return
    answers = app.control.inspect(timeout=timeout).conf(with_defaults=True) or {}
    if not answers:
        yield Checked("workers", "", Finding("good", f"none answers within {timeout:g} s"))
        return
    for node, conf in sorted(answers.items()):
        yield Checked("workers", node, _agreement(app, conf if isinstance(conf, dict) else {}))
    for node, ahead in sorted(_worker_clocks(app, timeout).items()):
        yield Checked("clocks", node, _of_clock("its clock", ahead))


def _agreement(app: Celery, conf: dict[str, Any]) -> Finding:
    """Whether this app reads the results of a worker with these settings. That the worker reads what this app sends is
    shown by its answer: commands travel as tasks do."""
    written = conf.get("result_serializer") or BY_NAME["result_serializer"].default
    accepted = list(app.conf.result_accept_content or app.conf.accept_content or ())
    try:
        reads = codecs.accept_types([written]) & (codecs.accept_types(accepted) or set())
    except SerializerNotInstalled:
        return Finding("doubtful", f"its results are written by the serializer {written!r}, which is not known here")
    if not reads:
        return Finding(
            "bad",
            f"its results are written as {written!r} (result_serializer), and this app reads {accepted} alone: add it "
            "to accept_content or result_accept_content here",
        )
    return Finding("good", f"answers, and its results can be read here ({written})")


def _worker_clocks(app: Celery, timeout: float) -> dict[str, float]:
    """Seconds by which the clock of each worker is ahead that sends a heartbeat when it is asked to."""
    name, broker = f"celeryev.{new_id()}", app.assembly.broker_for_read
    exchange = str(app.conf.event_exchange)
    arguments = {"x-expires": 60_000, "x-message-ttl": 5_000}
    bindings = (Binding(ExchangeSpec(exchange, "topic"), "worker.heartbeat"),)  # it is durable, and the queue is not
    mailbox = QueueSpec(
        name, exchange, "topic", "worker.heartbeat", durable=False, auto_delete=True, arguments=arguments,
        bindings=bindings,
    )  # fmt: skip
    found: dict[str, float] = {}
    assert isinstance(broker, Broadcasting)
    listener = broker.listen([mailbox])
    try:
        app.control.broadcast("heartbeat")
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            heard = [event for notice in listener.hear(left) for event in _events(notice.body)]
            now = time.time()
            found |= {str(event.get("hostname")): float(event.get("timestamp") or 0) - now for event in heard}
    finally:
        listener.close()
    return found


def _events(body: bytes) -> list[dict[str, Any]]:
    try:
        read = json.decode(body)
    except DecodeError:
        return []
    events = read if isinstance(read, list) else [read]
    return [one for one in events if isinstance(one, dict) and one.get("type") == "worker-heartbeat"]
