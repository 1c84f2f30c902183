"""The transmission of a finished response: late, slow, partial, or enlarged."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from service.sandbox.faults import (
    AnyFault,
    BloatFault,
    BombFault,
    DelayFault,
    DripFault,
    DropFault,
    TruncateFault,
)

MEGABYTE: Final = 1_000_000
PIECES_PER_SECOND: Final = 20
"""Maximum number of pieces of a slow body."""
_PIECE: Final = 65_536
"""Bytes of padding that are sent at once."""
_BLANKS: Final = b" " * _PIECE
_GZIP: Final = 31
"""The `wbits` of zlib that give the format of gzip."""
_BOMB_BEGIN: Final = b'{"status":"success","data":{"next":null,"results":['


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response and its transmission. It waits `delay_seconds`. `padding` blanks follow `body`.
    The rate is `bytes_per_second`, if set. If `drop_after` is set, the connection closes after this
    number of the announced bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    padding: int = 0
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    drop_after: int | None = None

    @property
    def length(self) -> int:
        """The number of announced bytes."""
        return len(self.body) + self.padding


def travelling(
    status: int, headers: dict[str, str], body: bytes, faults: Sequence[AnyFault]
) -> Answer:
    """The response with the faults of its transmission."""
    headers = dict(headers)
    padding = 0
    drop_after = None
    for fault in faults:
        if isinstance(fault, BombFault):
            body, padding = gzip_bomb(fault.megabytes), 0
            headers["content-encoding"] = "gzip"
        elif isinstance(fault, BloatFault) and "content-encoding" not in headers:
            padding = max(padding, fault.megabytes * MEGABYTE - len(body))
        elif isinstance(fault, TruncateFault):
            length = int((len(body) + padding) * fault.after)
            body = body[:length]
            padding = length - len(body)
        elif isinstance(fault, DropFault):
            drop_after = int((len(body) + padding) * fault.after)
    return Answer(
        status=status,
        headers={**headers, "content-length": str(len(body) + padding)},
        body=body,
        padding=padding,
        delay_seconds=sum(fault.seconds for fault in faults if isinstance(fault, DelayFault)),
        bytes_per_second=min(
            (fault.bytes_per_second for fault in faults if isinstance(fault, DripFault)),
            default=None,
        ),
        drop_after=drop_after,
    )


def pieces(answer: Answer) -> Iterator[tuple[bytes, float]]:
    """The pieces to send in sequence, at least one, each with the seconds to wait after it."""
    end = answer.length if answer.drop_after is None else answer.drop_after
    if answer.bytes_per_second is not None:
        size = max(1, math.ceil(answer.bytes_per_second / PIECES_PER_SECOND))
        pause = size / answer.bytes_per_second
    else:
        size, pause = max(len(answer.body), _PIECE), 0.0
    begin = 0
    while begin == 0 or begin < end:
        yield _cut(answer, begin, min(begin + size, end)), pause
        begin += size


def _cut(answer: Answer, begin: int, end: int) -> bytes:
    body = answer.body[begin:end]
    missing = end - begin - len(body)
    if not missing:
        return body
    return body + (_BLANKS if missing == _PIECE else b" " * missing)


@functools.lru_cache(maxsize=8)
def gzip_bomb(megabytes: int) -> bytes:
    """About a kilobyte of gzip for each MB of content: the beginning of a page, and blanks.
    Generating it takes about 5 ms for each MB, once."""
    compressor = zlib.compressobj(wbits=_GZIP)
    packed = [compressor.compress(_BOMB_BEGIN)]
    left = megabytes * MEGABYTE - len(_BOMB_BEGIN)
    while left > 0:
        packed.append(compressor.compress(_BLANKS[:left]))
        left -= _PIECE
    packed.append(compressor.flush())
    return b"".join(packed)
