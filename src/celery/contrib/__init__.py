"""Entrance. What is not needed to run tasks: helpers for tests, and small extensions."""
