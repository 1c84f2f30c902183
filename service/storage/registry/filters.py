"""Filters of registrations that Redis applies, so that a search reads few records."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec


class RecordFilter(msgspec.Struct, frozen=True):
    """The states that are wanted, none means any, and a text in lower case that a wanted record
    contains."""

    states: Sequence[str] = ()
    text: str | None = None

    @classmethod
    def of(cls, states: Collection[str] | None, name: str | None) -> RecordFilter:
        """The filter for these states and a part of a name. It passes every record that has them.
        It also passes records that contain the text elsewhere, or a character that compares like
        ASCII. A name beyond ASCII, or one that JSON escapes, is left to the caller."""
        plain = name and name.isascii() and name.isprintable() and not {*name} & {*'"\\'}
        return cls([*(states or ())], name.lower() if name and plain else None)


EVERYTHING = RecordFilter()
