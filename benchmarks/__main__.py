"""`python -m benchmarks`: ours, the real Celery and Huey in turn; prints ratios and writes RESULTS.md.

`--quick` runs one short round of each; `--only NAME` one scenario; `--json` prints the figures for machines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks import report, scenarios
from benchmarks.environment import subjects


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--reference", default=os.environ.get("CELERY_REFERENCE_PYTHON", ".venv-reference/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of the tasks")
    parser.add_argument("--only", action="append", choices=sorted(scenarios.ALL), help="this scenario alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--update", action="store_true", help="with --only: put these rows into RESULTS.md")
    parser.add_argument("--no-write", action="store_true", help="do not touch RESULTS.md")
    options = parser.parse_args()
    reference = os.path.abspath(options.reference)
    if not Path(reference).exists():
        parser.error(f"expected the reference environment's python at {reference}; `make .venv-reference` makes it")
    run = scenarios.Session(
        subjects(sys.executable, reference),
        rounds=1 if options.quick else options.rounds,
        scale=0.1 if options.quick else 1.0,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    rows = []
    for name in options.only or scenarios.ALL:
        rows.extend(scenarios.ALL[name](run))
        if not (options.no_write or options.quick or options.only):
            report.write(rows, Path(__file__).with_name("RESULTS.md"), options.rounds)
    if options.update:
        report.update(rows, Path(__file__).with_name("RESULTS.md"), options.rounds)
    if options.json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        print(report.table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
