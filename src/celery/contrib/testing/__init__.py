"""Entrance. What users test their tasks with; `celery.contrib.pytest` makes fixtures of it."""
