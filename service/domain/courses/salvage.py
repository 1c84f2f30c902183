"""Finds the parts of a JSON text that is broken somewhere, by its brackets and strings alone.

Nothing inside a part is judged: a part may be broken, and its user decodes it strictly. For
valid JSON the parts are exactly the values that a decoder finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

MAX_BYTES: Final = 16 * 1024 * 1024  # of a text; a larger page is asked for again in parts
MAX_BRACKETS: Final = 1_000_000  # and commas of the outermost level, passed in one text

_BLANKS: Final = b" \t\n\r"
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# What comes next outside strings: a bracket, a comma, or a quote that opens a string without end.
_NEXT_INSIDE: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb')*+([{}\[\]"])', re.DOTALL)
_NEXT: Final = re.compile(rb'(?:[^"{}\[\],]++|' + _STRING + rb')*+([{}\[\],"])', re.DOTALL)
_MEMBER: Final = re.compile(rb"(" + _STRING + rb")[ \t\n\r]*:", re.DOTALL)
_ONE_STRING_OR_WORD: Final = re.compile(_STRING + rb'|[^"{}\[\]]*+', re.DOTALL)
_CLOSING: Final = {b"{": b"}", b"[": b"]"}

_decode_text = msgspec.json.Decoder(str).decode
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""How decoding says that JSON is broken: malformed or of the wrong types, not UTF-8, or nested too
deep."""


def items(text: bytes) -> list[bytes] | None:
    """The items of a list, without the blanks around them; None if it is no list, its brackets
    and quotes do not match, or an item is more than one value. An item that is missing between
    two commas is empty; a comma behind the last item is passed over."""
    spans = _spans(text, b"[")
    if spans is None:
        return None
    found = [text[begin:end].strip(_BLANKS) for begin, end in spans]
    if not found[-1]:
        found.pop()
    return found if all(map(_is_one_value, found)) else None


def members(text: bytes) -> dict[str, bytes | None] | None:
    """The values of an object by their names; None if it is no object, its brackets and quotes do
    not match, or a member is not one value with a name. A name that comes twice has None for its
    value: either may be meant."""
    named = _members(text)
    if named is None:
        return None
    found: dict[str, bytes | None] = {}
    for name, value in named:
        if name is None or not _is_one_value(value):
            return None
        found[name] = None if name in found else value
    return found


def member(text: bytes, name: str) -> bytes | None:
    """The one value that an object has under a name, however broken its other members are."""
    found = [value for one, value in _members(text) or () if one == name]
    return found[0] if len(found) == 1 else None


def text_of(value: bytes | None) -> str | None:
    """The string that a value is; None if it is anything else, or broken."""
    try:
        return None if value is None else _decode_text(value)
    except UNREADABLE:
        return None


def _members(text: bytes) -> list[tuple[str | None, bytes]] | None:
    """The members of an object; a name that cannot be read is None."""
    spans = _spans(text, b"{")
    if spans is None:
        return None
    found: list[tuple[str | None, bytes]] = []
    for begin, end in spans:
        part = text[begin:end].strip(_BLANKS)
        name = _MEMBER.match(part)
        if name is not None:
            found.append((text_of(name[1]), part[name.end() :].strip(_BLANKS)))
        elif part or end != spans[-1][1]:
            found.append((None, part))
    return found


def _is_one_value(text: bytes) -> bool:
    """Whether a text may be one value, broken or not: else it is several, or parts of them."""
    if text[:1] in _CLOSING:
        return _spans(text, text[:1]) is not None
    return _ONE_STRING_OR_WORD.fullmatch(text) is not None


def _spans(text: bytes, opening: bytes) -> list[tuple[int, int]] | None:
    """What lies between the commas of a list or an object that is all of `text`."""
    if len(text) > MAX_BYTES:
        return None
    start = len(text) - len(text.lstrip(_BLANKS))
    if text[start : start + 1] != opening:
        return None
    spans = []
    begin = start + 1
    for at, is_end in _boundaries(text, begin, _CLOSING[opening]):
        spans.append((begin, at))
        begin = at + 1
        if is_end:
            return None if text[begin:].strip(_BLANKS) else spans
    return None


def _boundaries(text: bytes, at: int, closing: bytes) -> Iterator[tuple[int, bool]]:
    """Where the outermost commas are and, at last, the bracket that closes it all; ends before
    that bracket if brackets or quotes do not match, or there are too many."""
    expected = [closing]  # the brackets that close what is open
    for _ in range(MAX_BRACKETS):
        found = (_NEXT if len(expected) == 1 else _NEXT_INSIDE).match(text, at)
        if found is None:
            return
        token, at = found[1], found.end()
        if token == b",":
            yield at - 1, False
        elif token in _CLOSING:
            expected.append(_CLOSING[token])
        elif token != expected.pop():  # a quote is none of them
            return
        elif not expected:
            yield at - 1, True
            return
