"""The far end of `tests.running.Prompt`: reads a block a line (JSON), types it at a prompt, writes the answers."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import sys
import traceback


def answer(source: str, want: str, names: dict[str, object]) -> dict[str, str]:
    shown = io.StringIO()
    error = text = ""
    with contextlib.redirect_stdout(shown):
        try:
            exec(compile(source, "<stdin>", "single"), names)
        except Exception as exc:  # noqa: BLE001  whatever the user's code raises is shown
            error = traceback.format_exception_only(exc)[-1].strip()
            text = traceback.format_exc()
    return {"source": source, "want": want, "shown": shown.getvalue(), "error": error, "traceback": text}


def statements(block: str) -> list[tuple[str, str]]:
    """Source and expected output of each statement."""
    if ">>>" in block:
        return [(e.source, e.want) for e in doctest.DocTestParser().get_examples(block)]
    return [(block + "\n", "")]


def main() -> None:
    sys.path.insert(0, "")
    answers = sys.stdout
    names: dict[str, object] = {"__name__": "__main__"}
    for line in sys.stdin:
        block = json.loads(line)
        told = [answer(source, want, names) for source, want in statements(block)]
        print(json.dumps(told), file=answers, flush=True)


main()
