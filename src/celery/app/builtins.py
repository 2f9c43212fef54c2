"""Application. Tasks that every app has, since other workers send them by these names ([task.71], [task.73])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery._state import connect_on_app_finalize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.app.base import Celery

__all__ = [
    "add_accumulate_task", "add_backend_cleanup_task", "add_chord_unlock_task", "add_map_task", "add_starmap_task",
]  # fmt: skip


@connect_on_app_finalize
def add_backend_cleanup_task(app: Celery) -> Any:
    """`celery.backend_cleanup`: drop results that have expired; beat sends it once a day."""

    @app.task(name="celery.backend_cleanup", shared=False, lazy=False)
    def backend_cleanup() -> None:
        app.backend.cleanup()

    return backend_cleanup


@connect_on_app_finalize
def add_accumulate_task(app: Celery) -> Any:
    """`celery.accumulate`: its arguments as a list, or the one at `index`."""

    @app.task(bind=True, name="celery.accumulate", shared=False, lazy=False)
    def accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
        index = kwargs.get("index")
        return args[index] if index is not None else args

    return accumulate


@connect_on_app_finalize
def add_chord_unlock_task(app: Celery) -> Any:
    """`celery.chord_unlock`: looks whether the members of a chord are ready, where the storage does not count them."""

    @app.task(
        name="celery.chord_unlock",
        max_retries=None,
        shared=False,
        default_retry_delay=app.conf.result_chord_retry_interval,
        ignore_result=True,
        lazy=False,
        bind=True,
    )
    def unlock_chord(
        self: Any,
        /,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        from celery.app.unlocking import look

        look(app, self, group_id, callback, interval, max_retries, result)

    return unlock_chord


@connect_on_app_finalize
def add_map_task(app: Celery) -> Any:
    """`celery.map`: call the task here for each item, and give the list of what it returned."""

    @app.task(name="celery.map", shared=False, lazy=False)
    def xmap(task: Any, it: Iterable[Any]) -> list[Any]:
        run = app.signature(task).type
        return [run(item) for item in it]

    return xmap


@connect_on_app_finalize
def add_starmap_task(app: Celery) -> Any:
    """`celery.starmap`: the same, each item being a list of arguments."""

    @app.task(name="celery.starmap", shared=False, lazy=False)
    def xstarmap(task: Any, it: Iterable[Any]) -> list[Any]:
        run = app.signature(task).type
        return [run(*item) for item in it]

    return xstarmap
