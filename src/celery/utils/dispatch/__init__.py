"""Application. Where `Signal` may also be imported from."""

from celery.utils.dispatch.signal import Signal

__all__ = ("Signal",)
