"""Real Celery's client looks at a result again.

Once in some thousands of waits on a busy machine it misses the notice of a result that is there, whoever ran the task
(ours, 0 in 8,000; theirs, 2), and waits in vain. `AsyncResult.get` and `ResultSet.get` are begun anew every few
seconds, up to their timeout; not more than a few times in one process, so that notices which do not come are found out.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import celery
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, ResultSet

#: Seconds until it looks again, and how often it does.
PAUSE, MOST = 4.0, 3

_misses = 0


def patient(get: Any) -> Any:
    @functools.wraps(get)
    def get_patiently(self: Any, timeout: float | None = None, **options: Any) -> Any:
        global _misses
        end = time.monotonic() + (3600.0 if timeout is None else timeout)
        while True:
            left = end - time.monotonic()
            try:
                return get(self, timeout=min(left, PAUSE), **options)
            except TimeoutError:
                if left <= PAUSE:
                    raise
                if self.ready():
                    _misses += 1
                    if _misses > MOST:
                        raise

    return get_patiently


if "+next" not in celery.__version__:
    AsyncResult.get = patient(AsyncResult.get)  # type: ignore[method-assign]
    ResultSet.get = patient(ResultSet.get)  # type: ignore[method-assign]
