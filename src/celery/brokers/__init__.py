"""Adapter. See the modules."""
