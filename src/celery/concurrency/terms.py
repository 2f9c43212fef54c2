"""Domain. The terms on which a prefork pool keeps its children."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["START_METHODS", "Terms"]

#: How children can be made.
START_METHODS = ("fork", "spawn")


@dataclass(frozen=True, slots=True)
class Terms:
    """How children are made, and when they are replaced."""

    #: Runs after which a child is replaced (`[pool.6]`); None: never.
    max_tasks: int | None = None
    #: Kibibytes of resident memory; a child that has more after a run is replaced (`[pool.6]`); None: never.
    max_memory: int | None = None
    #: Seconds in which a new child must be ready (`[pool.4]`); None: for ever.
    alive_timeout: float | None = None
    start_method: str = "fork"

    def __post_init__(self) -> None:
        """Raises `ValueError`."""
        if self.start_method not in START_METHODS:
            raise ValueError(
                f"worker_pool_start_method: expected one of {', '.join(START_METHODS)}; got {self.start_method!r}"
            )
        for name in ("max_tasks", "max_memory", "alive_timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: expected a positive number or None, got {value!r}")
