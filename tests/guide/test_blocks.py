"""The reader of documents, and the comparison of what they show with what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guide.blocks import blocks, slug
from tests.running import Background, Prompt, alike, environment, missing_lines, shell

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# A Title, and *more* {#anchor}

``` pycon
>>> 1 + 1
2
```

<!-- not run: it takes a day -->
```console
$ first --long \\
    -x
its output
$ second
```

## Next

```python title="a/b.py"
x = 1
```
"""


def test_blocks(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    one, two, three = blocks(tmp_path / "page.md")
    assert (one.name, one.language, one.text, one.line) == ("a-title-and-more-1", "pycon", ">>> 1 + 1\n2", 3)
    assert (two.name, two.not_run, one.not_run) == ("a-title-and-more-2", "it takes a day", "")
    assert two.commands() == [("first --long -x", "its output\n"), ("second", "")]
    assert (three.name, three.title) == ("next-1", "a/b.py")


def test_slugs() -> None:
    assert slug("And there\\'s that calling API again...") == "and-theres-that-calling-api-again"


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ("4", "4", True),
        ("4", "5", False),
        ("d6b3aea2-fb9b-4ebc-8da4-848818db9114", "'00000000-fb9b-4ebc-8da4-848818db9114'", True),
        ("[…] ready", "[12:00] ready", True),
        ("a ... c", "a b d", False),
    ],
)
def test_alike(want: str, got: str, same: bool) -> None:
    assert alike(want, got) is same


def test_missing_lines() -> None:
    assert missing_lines("one\n\n  two …\nthree", "two x\none") == ["three"]


@pytest.mark.process
def test_a_prompt_keeps_names_and_tells_errors(tmp_path: Path) -> None:
    with Prompt(tmp_path, environment(tmp_path)) as prompt:
        first, second = prompt.enter(">>> x = 20\n>>> x + 1\n21\n")
        assert (first.shown, second.shown, second.want) == ("", "21\n", "21\n")
        assert prompt.value("_ + x") == "41"
        [failed] = prompt.enter("x + '1'")
        assert failed.error.startswith("TypeError: unsupported operand")
        with pytest.raises(AssertionError, match="TypeError"):
            failed.check()
        [wrong] = prompt.enter(">>> x\n21\n")
        with pytest.raises(AssertionError, match="expected: 21"):
            wrong.check()


def test_commands(tmp_path: Path) -> None:
    variables = environment(tmp_path, GREETING="hello")
    assert shell("python -c 'import os; print(os.environ[\"GREETING\"])'", tmp_path, variables) == "hello\n"
    with pytest.raises(AssertionError, match="ended with 3"):
        shell("exit 3", tmp_path, variables)
    with Background("sh -c 'echo up; exec sleep 60'", tmp_path, variables) as running:
        assert running.wait_for("^up$") == "up\n"
        with pytest.raises(AssertionError, match=r"no 'never' within 0\.01 s"):
            running.wait_for("never", timeout=0.01)
