"""Entrance. `python -m celery`, and the console script `celery`."""

from __future__ import annotations

import sys

from celery.bin.celery import main as run

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    sys.exit(run())


if __name__ == "__main__":
    main()
