"""Finds the parts of a broken JSON text by its brackets and strings alone.

A part may itself be broken; the caller decodes it strictly. For valid JSON the parts are exactly
the values that a decoder finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

MAX_BYTES: Final = 16 * 1024 * 1024  # of a text; a larger page is requested again in parts
MAX_BRACKETS: Final = 1_000_000  # brackets and commas of the outermost level in one text

_BLANKS: Final = b" \t\n\r"
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# The next token outside strings: a bracket, a comma, or a quote that opens an unterminated string.
_NEXT_INSIDE: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb')*+([{}\[\]"])', re.DOTALL)
_NEXT: Final = re.compile(rb'(?:[^"{}\[\],]++|' + _STRING + rb')*+([{}\[\],"])', re.DOTALL)
_MEMBER: Final = re.compile(rb"(" + _STRING + rb")[ \t\n\r]*:", re.DOTALL)
_ONE_STRING_OR_WORD: Final = re.compile(_STRING + rb'|[^"{}\[\]]*+', re.DOTALL)
_CLOSING: Final = {b"{": b"}", b"[": b"]"}

_decode_text = msgspec.json.Decoder(str).decode
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The exceptions of decoding for broken JSON: malformed or of the wrong types, not UTF-8, or nested
too deep."""


def items(text: bytes) -> list[bytes] | None:
    """The items of a list, without the blanks around them; None if the text is not a list, its
    brackets and quotes do not match, or an item is more than one value. An item that is missing
    between two commas is empty; a comma after the last item is ignored."""
    spans = _spans(text, b"[")
    if spans is None:
        return None
    found = [text[begin:end].strip(_BLANKS) for begin, end in spans]
    if not found[-1]:
        found.pop()
    return found if all(map(_is_one_value, found)) else None


def members(text: bytes) -> dict[str, bytes | None] | None:
    """The values of an object by their names; None if the text is not an object, its brackets and
    quotes do not match, or a member is not one value with a name. A duplicate name has the value
    None, because either value may be meant."""
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
    """The only value of a name in an object, however broken its other members are."""
    found = [value for one, value in _members(text) or () if one == name]
    return found[0] if len(found) == 1 else None


def text_of(value: bytes | None) -> str | None:
    """The string in a value; None if it is anything else, or broken."""
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
    """Whether a text may be one value, broken or not, and neither several nor parts of them."""
    if text[:1] in _CLOSING:
        return _spans(text, text[:1]) is not None
    return _ONE_STRING_OR_WORD.fullmatch(text) is not None


def _spans(text: bytes, opening: bytes) -> list[tuple[int, int]] | None:
    """The text between the commas of a list or an object that fills `text`."""
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
    """The positions of the outermost commas and finally of the closing bracket; without the latter
    if brackets or quotes do not match, or there are too many."""
    expected = [closing]  # the closing brackets of the open ones
    for _ in range(MAX_BRACKETS):
        found = (_NEXT if len(expected) == 1 else _NEXT_INSIDE).match(text, at)
        if found is None:
            return
        token, at = found[1], found.end()
        if token == b",":
            yield at - 1, False
        elif token in _CLOSING:
            expected.append(_CLOSING[token])
        elif token != expected.pop():  # not a quote
            return
        elif not expected:
            yield at - 1, True
            return
