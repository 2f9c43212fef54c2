"""Adapter. The result backend of an app that has none: saving drops, reading raises (`[backend.7]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.outcome import Record
    from celery.ports import BackendConfig

__all__ = ["NoBackend"]


class NoBackend:
    """Keeps nothing. Whoever asks for a result is told which setting is missing."""

    url_text = "disabled://"

    def __init__(self, config: BackendConfig | None = None) -> None:
        """The configuration, if any, does not matter: other backends are made with one."""

    def save(self, records: Sequence[Record]) -> None:
        """Drop them."""

    def load(self, ids: Sequence[str]) -> NoReturn:
        """Raises `NotImplementedError`."""
        raise NotImplementedError(
            "This app keeps no results, so there is none to read. Give it a result backend: "
            "Celery(backend='sqlite:///results.db'), the setting result_backend, or CELERY_RESULT_BACKEND."
        )

    def wait(self, ids: Sequence[str], timeout: float | None) -> NoReturn:
        """Raises `NotImplementedError`."""
        self.load(ids)

    def forget(self, ids: Sequence[str]) -> NoReturn:
        """Raises `NotImplementedError`."""
        self.load(ids)

    def close(self) -> None:
        """Nothing is open."""
