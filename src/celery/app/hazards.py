"""Application. Combinations of settings that lose or repeat work, told when a worker starts (decision 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.exceptions import SerializerNotInstalled

from celery import codecs
from celery.app.configuring import is_strict
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.base import Celery

__all__ = ["hazards", "look_out"]


def look_out(app: Celery, soft: float | None, hard: float | None) -> list[str]:
    """`hazards`, to be logged. Raises `ImproperlyConfigured` with all of them if the settings are strict."""
    found = list(hazards(app, soft, hard))
    if found and is_strict():
        raise ImproperlyConfigured("Settings that lose or repeat work:\n" + "\n".join(f"- {text}" for text in found))
    return found


def hazards(app: Celery, soft: float | None, hard: float | None) -> Iterator[str]:
    """What is wrong, what comes of it and what to do: one text each. `soft`, `hard`: the worker's limits in seconds."""
    yield from _of_limits(app, soft, hard)
    yield from _of_acknowledging(app)
    yield from _of_serializers(app.conf)
    if app.conf.task_always_eager:
        yield (
            "task_always_eager is on: tasks that a task of this worker calls run inside it, at once, and are on no "
            "queue. It is meant for tests: unset it."
        )


def _of_limits(app: Celery, soft: float | None, hard: float | None) -> Iterator[str]:
    told = "so tasks are killed before they hear of the soft one. Make the soft limit the shorter."
    if soft and hard and soft >= hard:
        yield f"The worker's soft time limit ({soft} s) is not below its hard one ({hard} s), {told}"
    for name, task in sorted(app.tasks.items()):
        own_soft, own_hard = task.soft_time_limit or soft, task.time_limit or hard
        if (own_soft, own_hard) != (soft, hard) and own_soft and own_hard and own_soft >= own_hard:
            yield f"The soft time limit of {name} ({own_soft} s) is not below its hard one ({own_hard} s), {told}"


def _of_acknowledging(app: Celery) -> Iterator[str]:
    conf = app.conf
    if conf.task_reject_on_worker_lost and not conf.task_acks_late:
        yield (
            "task_reject_on_worker_lost is on and task_acks_late is not: messages are acknowledged before they are "
            "run, so nothing is left to give back when a process dies. Set task_acks_late too."
        )
    for name, task in sorted(app.tasks.items()):
        if task.reject_on_worker_lost and not task.acks_late and not conf.task_reject_on_worker_lost:
            yield f"{name} has reject_on_worker_lost without acks_late, which changes nothing. Set acks_late too."
    if conf.worker_deduplicate_successful_tasks and app.assembly.store is None:
        yield (
            "worker_deduplicate_successful_tasks is on and no results are kept, so nobody knows what has succeeded and "
            "redelivered tasks run again. Set result_backend."
        )


def _of_serializers(conf: Any) -> Iterator[str]:
    for written, accepted, comes in (
        ("task_serializer", conf.accept_content, "workers with these settings refuse every task that they send"),
        ("result_serializer", conf.result_accept_content or conf.accept_content, "no result can be read back"),
    ):
        serializer = conf[written]
        try:
            refused = not codecs.accept_types([serializer]) & codecs.accept_types(accepted or ())
        except SerializerNotInstalled:  # it may be registered yet, and says so itself when it is used
            continue
        if refused:
            yield (
                f"{written} is {serializer!r}, which the accepted content {[*(accepted or ())]} leaves out: {comes}. "
                f"Add it to accept_content."
            )
