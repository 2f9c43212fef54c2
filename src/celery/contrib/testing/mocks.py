"""Entrance. Messages and contexts made of `unittest.mock`, for tests of what takes messages (`[test.11]`)."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from kombu.serialization import dumps

from celery.producer import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery import Celery
    from celery.canvas import Signature

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def TaskMessage(  # noqa: N802 - its public name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] | None = None,
    errbacks: Sequence[Any] | None = None,
    chain: Sequence[Any] | None = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Mock:
    """A kombu message of protocol 2 as far as a test looks at it; whatever else is asked of it is a mock.

    `options` are headers.
    """
    id = id or new_id()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    message = _message(id, (tuple(args), dict(kwargs or {}), embed))
    message.headers = {"id": id, "task": name, "shadow": shadow, **options}
    return message


def TaskMessage1(  # noqa: N802 - its public name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] | None = None,
    errbacks: Sequence[Any] | None = None,
    chain: Sequence[Any] | None = None,
    **options: Any,
) -> Mock:
    """The same of protocol 1, which has all in the body and knows no chains; `options` are fields of the body."""
    id = id or new_id()
    body = {"task": name, "id": id, "args": tuple(args), "kwargs": dict(kwargs or {})}
    message = _message(id, {**body, "callbacks": callbacks, "errbacks": errbacks, **options})
    message.headers = {}
    return message


def _message(id: str, payload: Any) -> Mock:
    message = Mock(name=f"TaskMessage-{id}")
    message.payload = payload
    message.content_type, message.content_encoding, message.body = dumps(payload, serializer="json")
    return message


def task_message_from_sig(
    app: Celery,
    sig: Signature[Any],
    utc: bool = True,
    TaskMessage: Callable[..., Any] = TaskMessage,  # noqa: N803 - its public name
) -> Any:
    """The message that sending the signature would make. The signature gets an id, and keeps its options."""
    sig.freeze()
    options = dict(sig.options)
    return TaskMessage(
        sig.task,
        id=sig.id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=_signatures(options.pop("link", None)),
        errbacks=_signatures(options.pop("link_error", None)),
        chain=options.pop("chain", None),
        shadow=options.pop("shadow", None),
        eta=_date(app, options.pop("countdown", None), options.pop("eta", None)),
        expires=_date(app, options.pop("expires", None)),
        utc=utc,
        **options,
    )


def _signatures(link: Any) -> list[dict[str, Any]] | None:
    if not link:
        return None
    return [dict(one) for one in (link if isinstance(link, list | tuple) else [link])]


def _date(app: Celery, *given: Any) -> str | None:
    """The first that is given, as text: a date, or seconds from now."""
    for value in given:
        if isinstance(value, int | float):
            return (app.now() + dt.timedelta(seconds=value)).isoformat()
        if value is not None:
            return value.isoformat() if isinstance(value, dt.datetime) else str(value)
    return None


class _ContextMock(Mock):
    """`Mock` makes none of these two by itself: they are looked up on the class."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc_info: object) -> None: ...


def ContextMock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802 - its public name
    """A mock that is its own context: `with mock as same: …`; it lets exceptions through."""
    made = _ContextMock(*args, **kwargs)
    made.attach_mock(_ContextMock(), "__enter__")
    made.attach_mock(_ContextMock(), "__exit__")
    made.__enter__.return_value = made  # type: ignore[attr-defined]
    made.__exit__.return_value = None  # type: ignore[attr-defined]
    return made
