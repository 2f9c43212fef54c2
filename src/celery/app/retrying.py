"""Application. A run asks to be tried again: what `Task.retry` does ([task.21] to [task.31])."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from celery.app.autoretry import backoff
from celery.exceptions import Reject, Retry
from celery.producer import Gathered
from celery.retry import rebind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.task import Task
    from celery.canvas import Signature
    from celery.current import Context

__all__ = ["retry", "signature_of"]


def retry(
    task: Task[..., Any],
    arguments: tuple[Sequence[Any] | None, Mapping[str, Any] | None],
    exc: Any,
    throw: bool,
    timing: tuple[Any, float | None],
    max_retries: int | None,
    options: dict[str, Any],
) -> Retry:
    """See `Task.retry`. `arguments` are args and kwargs, `timing` eta and countdown, each None if not given."""
    request = task.request
    eta, countdown = timing
    if max_retries is not None:
        request.override_max_retries = max_retries
    if request.called_directly:
        _raise(exc or Retry("Task can be retried", None))
    if not eta and countdown is None:
        countdown = backoff(task)
        if countdown is None:
            countdown = task.default_retry_delay
    args, kwargs = rebind(_positional(task, arguments), (request.args or (), request.kwargs or {}), *arguments)
    retries = (request.retries or 0) + 1
    signature = task.signature_from_request(
        request, args, kwargs, countdown=countdown, eta=eta, retries=retries, **options
    )
    limit = task.max_retries if max_retries is None else max_retries
    if limit is not None and retries > limit:
        if exc:
            _raise(exc)
        raise task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{signature.args} kwargs:{signature.kwargs}",
            task_args=signature.args,
            task_kwargs=signature.kwargs,
        )
    asked = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=signature)
    if not request.is_eager:
        _send(signature, request if throw else None)
    if throw:
        raise asked
    return asked


def _send(signature: Signature[Any], request: Context | None) -> None:
    """With the request of a run that ends here the message goes out when the run is settled, in the same step as its
    acknowledgement where that can be: a kill in between makes neither two of it nor none."""
    given: dict[str, Any] = {}
    if request is not None and request._gathered is not None:
        given["producer"] = request._gathered = request._gathered or Gathered()
    try:
        # Not a child of the run: it is the run's own next attempt.
        signature.apply_async(add_to_parent=False, **given)
    except Exception as failure:
        raise Reject(failure, requeue=False) from failure


def _raise(exc: Any) -> NoReturn:
    """Raise `exc`, chained to the exception that is being handled, if that is another."""
    handled = sys.exc_info()[1]
    if handled is None or handled is exc:
        raise exc
    raise exc from handled


def signature_of(
    task: Task[..., Any],
    request: Context,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    queue: str | None,
    extra: dict[str, Any],
) -> Signature[Any]:
    """The call that a request came from, to the same queue with the same options ([task.27], [task.28])."""
    options = request.as_execution_options()
    if request.stamped_headers:
        stamps = request.stamps or {}
        options["stamped_headers"] = request.stamped_headers
        options.update((name, stamps.get(name)) for name in request.stamped_headers)
    options["ignore_result"] = request.ignore_result
    came = request.delivery_info
    if queue is not None:
        options["queue"] = queue
    elif came:
        options["priority"] = came.get("priority")
        if came.get("exchange"):
            options.update(exchange=came["exchange"], routing_key=came.get("routing_key"))
        elif came.get("routing_key"):
            options["queue"] = came["routing_key"]  # the default exchange: the key is the queue's name
    return task.signature(
        request.args if args is None else args,
        request.kwargs if kwargs is None else kwargs,
        **{**options, **extra},
    )


def _positional(task: Task[..., Any], arguments: tuple[Any, Any]) -> list[str | None]:
    """The parameters of the body that positional arguments bind; nothing where nobody needs to know."""
    if (arguments[0] is None) is (arguments[1] is None):
        return []
    from inspect import Parameter, signature

    try:
        parameters = signature(task.run).parameters.values()
    except (TypeError, ValueError):  # a body written in C may not say
        return []
    named = {Parameter.POSITIONAL_OR_KEYWORD: True, Parameter.POSITIONAL_ONLY: False}
    return [p.name if named[p.kind] else None for p in parameters if p.kind in named]
