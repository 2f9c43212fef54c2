"""What `celery multi` makes of command lines. Under either Celery.

    python tests/wire/reference/multi_words.py < lines.json

Standard input: a JSON list of lists of words. Prints JSON: for each, the exit code and the words of each line printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys

from celery.bin.multi import MultiTool


def answer(words: list[str]) -> list[object]:
    out = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            code = MultiTool(fh=out).execute_from_commandline(["multi", *words])
        except ValueError:  # so it ends there, with a traceback
            code = 1
    if code:  # each says in its own words what is wrong
        return [code, []]
    lines = [shlex.split(line.replace(sys.executable, "PYTHON")) for line in out.getvalue().split("\n")]
    return [code, [line for line in lines if line]]


if __name__ == "__main__":
    os.makedirs = lambda *args, **kwargs: None  # theirs makes folders for what is only shown
    print(json.dumps([answer(words) for words in json.load(sys.stdin)]))
