"""Application. Text in colours, for terminals that have them."""

from __future__ import annotations

import base64
import os
import platform
from typing import Any

__all__ = ("colored",)

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
OP_SEQ = "\033[%dm"
RESET_SEQ = "\033[0m"
COLOR_SEQ = "\033[1;%dm"

IS_WINDOWS = platform.system() == "Windows"
ITERM_PROFILE = os.environ.get("ITERM_PROFILE")
TERM = os.environ.get("TERM")


def fg(s: int) -> str:
    """The sequence that turns a colour on."""
    return COLOR_SEQ % s


class colored:  # noqa: N801 - Celery's name
    """Text in colours, made of texts in colours: `colored().red("one", colored().bold("two"))`.

    Methods give new texts, `str()` the sequences, `no_color()` the bare text. With `enabled=False` both are bare.
    """

    def __init__(self, *s: Any, **kwargs: Any) -> None:
        self.s = s
        self.enabled: bool = not IS_WINDOWS and kwargs.get("enabled", True)
        self.op: str = kwargs.get("op", "")
        self.names = {
            name: getattr(self, name)
            for name in ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
        }

    def no_color(self) -> str:
        """The bare text."""
        return "".join(part.no_color() if isinstance(part, colored) else str(part) for part in self.s)

    def embed(self) -> str:
        """The text with its sequences, not reset at the end."""
        prefix = self.op if self.enabled else ""
        return prefix + "".join(str(part) for part in self.s)

    def __str__(self) -> str:
        return self.embed() + (RESET_SEQ if self.enabled and self.s else "")

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> str:
        return str(self) + str(other)

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """A text of this one's kind under another sequence."""
        return self.__class__(*s, enabled=self.enabled, op=op)

    def black(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLACK))

    def red(self, *s: object) -> colored:
        return self.node(s, fg(30 + RED))

    def green(self, *s: object) -> colored:
        return self.node(s, fg(30 + GREEN))

    def yellow(self, *s: object) -> colored:
        return self.node(s, fg(30 + YELLOW))

    def blue(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLUE))

    def magenta(self, *s: object) -> colored:
        return self.node(s, fg(30 + MAGENTA))

    def cyan(self, *s: object) -> colored:
        return self.node(s, fg(30 + CYAN))

    def white(self, *s: object) -> colored:
        return self.node(s, fg(30 + WHITE))

    def bold(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 1)

    def underline(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 4)

    def blink(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 5)

    def reverse(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 7)

    def bright(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 8)

    def ired(self, *s: object) -> colored:
        return self.node(s, fg(40 + RED))

    def igreen(self, *s: object) -> colored:
        return self.node(s, fg(40 + GREEN))

    def iyellow(self, *s: object) -> colored:
        return self.node(s, fg(40 + YELLOW))

    def iblue(self, *s: object) -> colored:
        return self.node(s, fg(40 + BLUE))

    def imagenta(self, *s: object) -> colored:
        return self.node(s, fg(40 + MAGENTA))

    def icyan(self, *s: object) -> colored:
        return self.node(s, fg(40 + CYAN))

    def iwhite(self, *s: object) -> colored:
        return self.node(s, fg(40 + WHITE))

    def reset(self, *s: object) -> colored:
        return self.node(s or ("",), RESET_SEQ)


def supports_images() -> bool:
    """Can the terminal show pictures (iTerm)?"""
    return bool(ITERM_PROFILE)


def imgcat(path: str, inline: int = 1, preserve_aspect_ratio: int = 0, **kwargs: Any) -> str:
    """The sequence that shows the picture in the file."""
    in_screen = (TERM or "").startswith("screen")
    before, after = ("\033Ptmux;\033\033]", "\a\033\\") if in_screen else ("\033]", "\a")
    with open(path, "rb") as picture:
        content = base64.b64encode(picture.read()).decode("ascii")
    return f"\n{before}1337;File=inline={inline};preserveAspectRatio={preserve_aspect_ratio}:{content}{after}"
