"""Entrance. The command line."""
