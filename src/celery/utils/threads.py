"""Compatibility. `celery.utils.threads`: stacks of their own for each thread, greenlet and asyncio task ([util.8])."""

from threading import get_ident
from threading import local as Local  # noqa: N812 - its public name

from celery.current import LocalStack

__all__ = ["Local", "LocalStack", "get_ident"]
