"""Pasted secrets: removes text that was copied along, and names a character that is wrong.

A message names one character that cannot be part of the secret, and its position. It never repeats
the secret.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "«": "»"}
_QUOTES["\u2018"] = "\u2019"  # single quotes, as word processors write them
_INVISIBLE = frozenset({"Cf", "Cc", "Zs", "Zl", "Zp"})  # format, control, separators
_NAMES = {
    " ": "a space",
    "\n": "a line break",
    "\r": "a line break",
    "\t": "a tab",
}


class Pasted(NamedTuple):
    """The remaining text, and the number of characters that were removed before it."""

    text: str
    start: int

    def without(self, prefix: str) -> Pasted:
        """The text after `prefix`, even if that is repeated."""
        rest = self
        while rest.text.startswith(prefix):
            rest = Pasted(rest.text[len(prefix) :], rest.start + len(prefix))
        return rest

    def wrong(self, allowed: Callable[[str], bool]) -> str | None:
        """A sentence with the first character that is not `allowed` and its position; None if all
        are allowed."""
        if all(map(allowed, self.text)):
            return None
        index, character = next(
            (index, one) for index, one in enumerate(self.text) if not allowed(one)
        )
        return f"character {self.start + index + 1} is {_named(character)}"


def trimmed(text: str, *prefixes: str, quotes: bool = True) -> Pasted:
    """`text` without white space and invisible characters around it, without the quotes around it,
    and without any of `prefixes` (in whichever case) before it."""
    start, end = 0, len(text)
    before = None
    while before != (start, end):
        before = start, end
        while start < end and _is_invisible(text[start]):
            start += 1
        while start < end and _is_invisible(text[end - 1]):
            end -= 1
        if quotes and end - start > 2 and text[end - 1] == _QUOTES.get(text[start]):
            start, end = start + 1, end - 1
        for prefix in prefixes:
            # A prefix alone stays, because it is the whole pasted text.
            if len(prefix) < end - start and text[start : start + len(prefix)].lower() == prefix:
                start += len(prefix)
    return Pasted(text[start:end], start)


def is_visible(character: str) -> bool:
    """Whether a character is visible ASCII."""
    return "!" <= character <= "~"


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE


def _named(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    if is_visible(character):
        return f"'{character}'"
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}{name and f' ({name})'}"
