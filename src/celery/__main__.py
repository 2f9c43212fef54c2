"""Entrance. `python -m celery`, and the console script `celery`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from celery.bin.celery import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
