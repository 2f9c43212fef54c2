"""Random command lines of `celery multi`, and what the real Celery 5.7 makes of the same words (area multi).

Left out is what fails or goes astray there: a value after a long option and a space, short names of counted nodes, one
node named in two ways, spaces within values.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.fuzz import FUZZ
from tests.running import ROOT
from tests.wire import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = 20_000 if FUZZ else 1_500
SEED = 6


class Words:
    """One random command line."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.count = dice.choice([None, None, 1, 2, 3, 12])
        self.names = [dice.choice(["w1", "w2", "w-3", "w4@h.x", "w5@%h", "w6@%h.y"]) for _ in range(dice.randint(1, 4))]
        self.names = list(dict.fromkeys(self.names))

    def make(self) -> list[str]:
        dice = self.dice
        nodes = [str(self.count)] if self.count else list(self.names)
        options = [words for make in dice.choices(self.kinds(), k=dice.randint(0, 6)) for words in [make()]]
        parts = [*([node] for node in nodes), *options]
        dice.shuffle(parts)
        words = [word for part in parts for word in part]
        for option in ("-q", "--verbose", "--nosplash", "--no-color"):  # theirs takes one of several away
            while words.count(option) > 1:
                words.remove(option)
        if dice.random() < 0.2:
            words += ["--", *dice.choices(["-x", "--y=1", "z", "-c:1", "3", "w9"], k=dice.randint(0, 3))]
        command = dice.choice(
            [["show"], ["show"], ["show"], ["names"], ["expand", "%n %N %h %d %p %i%I %%"], ["get", f"w1@{HOST}"]]
        )
        return [*command, *words]

    def kinds(self) -> list[Any]:
        dice = self.dice
        return [
            lambda: [dice.choice(["-c", "-Q", "-A", "-b", "-l", "-P", "-O"]), self.value()],
            lambda: [f"--{dice.choice(['app', 'broker', 'loader', 'workdir', 'x', 'pool', 'config'])}={self.value()}"],
            lambda: [
                dice.choice(
                    ["-E", "-C", "--task-events", "-D", "--purge", "-9", "--no-color", "-q", "--verbose", "--nosplash"]
                )
            ],
            lambda: [f"-{dice.choice('cQlAb')}:{self.selector()}", self.value()],
            lambda: [f"--{dice.choice(['pool', 'app', 'x'])}:{self.selector()}={self.value()}"],
            lambda: [f"-{dice.choice('EWZ')}:{self.selector()}", "--between=1"],
            lambda: [
                dice.choice(
                    [f"--prefix={self.prefix()}", f"--suffix={self.prefix()}", f"--range-prefix={self.prefix()}"]
                ),
            ],
            lambda: [dice.choice(["-n", "-n"]), dice.choice(["host.x", "%h.x", "%d"])],
            lambda: [
                dice.choice([f"--hostname={self.prefix()}", "--append=--more", "--executable=/bin/py", "--suffix=''"])
            ],
            lambda: [f"--{dice.choice(['pidfile', 'logfile'])}=/tmp/multi-words/{self.value()}"],
            lambda: [
                dice.choice(
                    [
                        "--pidfile=~/%n.pid",
                        "--logfile=~/%N%I.log",
                        "--cmd=celery worker",
                        "--cmd=python -m celery -q worker",
                    ]
                )
            ],
        ]

    def prefix(self) -> str:
        return self.dice.choice(["p_", "x.y", "%n", "%h.%d", "a=b"])

    def value(self) -> str:
        return self.dice.choice(["1", "10", "a,b", "proj", "%n", "%h.%d", "%N%I", "%%x", "p_", "x.y", "a=b", "a:b"])

    def selector(self) -> str:
        dice = self.dice
        if self.count:
            some = [str(dice.randint(1, self.count)) for _ in range(dice.randint(1, 3))]
            return ",".join([*some, *([f"{dice.randint(0, 3)}-{dice.randint(1, 14)}"] if dice.random() < 0.4 else [])])
        numbered = [str(dice.randint(1, len(self.names)))] if "@" not in "".join(self.names) else ["nobody"]
        named = [dice.choice(self.names).partition("@")[0]]
        return ",".join(dice.choice([numbered, named, ["nobody"], numbered * 2]))


HOST = os.uname().nodename


def lines() -> Iterator[list[str]]:
    dice = random.Random(SEED)
    for _ in range(LINES):
        yield Words(dice).make()


def answers(python: str, environment: dict[str, str], asked: list[list[str]]) -> list[Any]:
    done = subprocess.run([python, str(golden.SCRIPTS / "multi_words.py")], input=json.dumps(asked), env=environment,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python")
@pytest.mark.process
def test_the_same_words_are_the_same_workers(tmp_path: Path) -> None:
    asked = list(lines())
    ours = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    mine = answers(sys.executable, ours, asked)
    theirs = answers(golden.REFERENCE, golden.reference_environment(tmp_path), asked)
    wrong = [
        f"{shlex.join(words)}\n   ours: {a}\n theirs: {b}"
        for words, a, b in zip(asked, mine, theirs, strict=True)
        if a != b
    ]
    assert not wrong, f"{len(wrong)} of {len(asked)} differ:\n" + "\n".join(wrong[:10])
