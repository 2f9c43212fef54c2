"""Entrance. `python -m celery`, and the console script `celery` (`[cli.30]`)."""

from __future__ import annotations

import sys

from celery.patching import maybe_patch_concurrency

__all__ = ["main"]


def main() -> None:
    """Run the command line. Green pools are patched for before anything else is imported (`[app.48]`)."""
    if "multi" not in sys.argv:  # its `-P` is its workers'
        try:
            maybe_patch_concurrency()
        except ImportError as exc:
            sys.exit(f"Error: this pool needs the package {exc.name!r}: pip install 'celery[{exc.name}]'")
    from celery.bin.celery import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
