"""Compatibility. `celery.messaging`: connections of the current app ([app.49])."""

from typing import Any

from celery import _state


def __getattr__(name: str) -> Any:
    app = _state.get_current_app()
    if name == "establish_connection":
        return app.connection
    if name in ("TaskConsumer", "get_consumer_set"):
        return app.amqp.TaskConsumer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
