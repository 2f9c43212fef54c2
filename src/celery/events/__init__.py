"""Application. Events: what workers and clients tell monitors, and how it is heard (`celery.events`)."""

from __future__ import annotations

from celery.events.dispatcher import EventDispatcher
from celery.events.event import Event, event_exchange, get_exchange, group_from
from celery.events.receiver import EventReceiver

__all__ = ("Event", "EventDispatcher", "EventReceiver", "event_exchange", "get_exchange", "group_from")
