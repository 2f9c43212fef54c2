"""Application. Tasks that every app has, since other workers send them by these names ([task.71], [task.73])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery._state import connect_on_app_finalize
from celery.app.parts import part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.app.base import Celery

__all__ = [
    "add_accumulate_task", "add_backend_cleanup_task", "add_chain_task", "add_chord_task", "add_chord_unlock_task",
    "add_chunk_task", "add_group_task", "add_map_task", "add_starmap_task",
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
        many = getattr(run._types, "one_of_many", None)
        return [run(item) for item in it] if many is None else many.run(run, it)

    return xmap


@connect_on_app_finalize
def add_starmap_task(app: Celery) -> Any:
    """`celery.starmap`: the same, each item being a list of arguments."""

    @app.task(name="celery.starmap", shared=False, lazy=False)
    def xstarmap(task: Any, it: Iterable[Any]) -> list[Any]:
        run = app.signature(task).type
        many = getattr(run._types, "each_of_many", None)
        return [run(*item) for item in it] if many is None else many.run(run, it)

    return xstarmap


@connect_on_app_finalize
def add_chunk_task(app: Celery) -> Any:
    """`celery.chunks`: send the task for each item, `n` of them in a message; gives the result of the group."""

    @app.task(name="celery.chunks", shared=False, lazy=False)
    def chunks(task: Any, it: Iterable[Any], n: int) -> Any:
        return part("chunks").apply_chunks(app.signature(task), it, n, app=app)

    return chunks


@connect_on_app_finalize
def add_group_task(app: Celery) -> Any:
    """`celery.group`: send the members, whose ids are chosen, as old senders ask for it."""

    @app.task(name="celery.group", bind=True, shared=False, lazy=False)
    def group(
        self: Any, /, tasks: Any, result: Any, group_id: str, partial_args: Any, add_to_parent: bool = True
    ) -> Any:
        members = [app.signature(task) for task in tasks]
        part("group")(members, app=app).apply_async(partial_args, task_id=group_id, add_to_parent=False)
        found = part("result_from_tuple")(result, app)
        if add_to_parent:
            self.add_trail(found)
        return found

    return group


@connect_on_app_finalize
def add_chain_task(app: Celery) -> Any:
    """`celery.chain`: a name only; what is sent of a chain is its first step."""

    @app.task(name="celery.chain", shared=False, lazy=False)
    def chain(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("chain is not a real task: send the signature, whose first step takes the rest along")

    return chain


@connect_on_app_finalize
def add_chord_task(app: Celery) -> Any:
    """`celery.chord`: send the header, and the body after it, as old senders ask for it."""

    @app.task(name="celery.chord", bind=True, shared=False, lazy=False)
    def chord(
        self: Any,
        /,
        header: Any,
        body: Any,
        partial_args: Any = (),
        interval: float | None = None,
        countdown: float = 1,
        max_retries: int | None = None,
        eager: bool = False,
        **kwargs: Any,
    ) -> Any:
        whole = part("chord")(header, body, app=app)
        how: dict[str, Any] = {"interval": interval, "countdown": countdown, "max_retries": max_retries, "eager": eager}
        return whole.run(whole.tasks, whole.body, partial_args, **how, **kwargs)

    return chord
