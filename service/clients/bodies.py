"""Bodies of answers: undoes their codings within a limit, and says in words what they are."""

from __future__ import annotations

import codecs
import json
import zlib
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from service.domain.errors import UpstreamPageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    import httpx

    from service.domain.access.redaction import Redactor

MAX_CODINGS = 4  # of one answer, one around the other
MAX_MEMBERS = 10_000  # of one gzip body
PACKING_BYTES = 65_536  # by which a packed body may be larger than the body itself may
EXCERPT_LENGTH = 80  # characters of a body that are quoted
TYPE_LENGTH = 60  # of its content type

# What `Content-Encoding` says of bodies that need no decoding, rightly or not.
_PLAIN = frozenset({"", "identity", "none", "utf-8", "utf8", "binary", "8bit", "aws-chunked"})
_GZIP_BEGINS = b"\x1f\x8b"
_ZLIB_METHOD = 8
_EXAMINED = 4_000  # bytes of a body that are looked at in order to quote some of it


class _Layer(ABC):
    """Undoes one coding, and gives no more than `limit` bytes in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = limit + 1  # a byte too many tells that there is more
        self._unpacker: zlib._Decompress | None = None
        self._waiting = b""  # too little yet to tell what it is

    @property
    def complete(self) -> bool:
        """Whether all that was packed has come."""
        return self._unpacker is not None and self._unpacker.eof

    @abstractmethod
    def unpack(self, data: bytes) -> bytes:
        """What comes of the next part. Raises `UpstreamPageError`."""

    def _inflate(self, unpacker: zlib._Decompress, data: bytes) -> bytes:
        try:
            part = unpacker.decompress(data, self._room)
        except zlib.error as exc:
            raise UpstreamPageError("the upstream's compressed answer is damaged") from exc
        self._room -= len(part)
        if not self._room:
            raise _too_large(self._limit)
        return part


class _Gzip(_Layer):
    """Members one behind the other. Zeros behind one are padding, and anything else that is no
    member ends it, as with gzip itself."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._members = 0
        self._over = False

    def unpack(self, data: bytes) -> bytes:
        parts = []
        while data and not self._over:
            if self._unpacker is None or self._unpacker.eof:
                data = self._waiting + data
                if self._members:
                    data = data.lstrip(b"\0")
                if len(data) < len(_GZIP_BEGINS):
                    self._waiting = data
                    break
                if self._members and not data.startswith(_GZIP_BEGINS):
                    self._over = True
                    break
                self._waiting = b""
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise UpstreamPageError("the upstream's compressed answer is in too many parts")
                self._unpacker = zlib.decompressobj(wbits=31)
            parts.append(self._inflate(self._unpacker, data))
            data = self._unpacker.unused_data
        return b"".join(parts)


class _Deflate(_Layer):
    """As HTTP means it, or raw, as some send it. What follows the end is passed over."""

    def unpack(self, data: bytes) -> bytes:
        if self._unpacker is None:
            data = self._waiting + data
            if len(data) < 2:
                self._waiting = data
                return b""
            wrapped = data[0] & 15 == _ZLIB_METHOD and int.from_bytes(data[:2], "big") % 31 == 0
            self._unpacker = zlib.decompressobj(wbits=15 if wrapped else -15)
        return b"" if self._unpacker.eof else self._inflate(self._unpacker, data)


_LAYERS: dict[str, Callable[[int], _Layer]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}


async def read_body(response: httpx.Response, limit: int, parts: list[bytes]) -> None:
    """Adds the body to `parts` as it comes, decoded. It may have `limit` bytes, at each stage of
    its decoding hardly more.

    Raises `UpstreamPageError` where it cannot be decoded or is larger.
    """
    layers = _layers(response.headers.get("content-encoding", ""), limit)
    received = size = 0
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
        async for chunk in chunks:
            received += len(chunk)
            part = chunk
            for layer in layers:
                part = layer.unpack(part)
            size += len(part)
            if size > limit or received > limit + PACKING_BYTES:
                raise _too_large(limit)
            parts.append(part)
    if not all(layer.complete for layer in layers):
        raise UpstreamPageError("the upstream's compressed answer breaks off")


def _layers(header: str, limit: int) -> list[_Layer]:
    """What undoes the codings, in the order in which they are undone."""
    named = [one.partition(";")[0].strip().lower() for one in header.split(",")]
    codings = [one for one in named if one not in _PLAIN]
    if any(one not in _LAYERS for one in codings) or len(codings) > MAX_CODINGS:
        raise UpstreamPageError(
            f"the upstream's answer is encoded as {printable(header, TYPE_LENGTH)!r}, which cannot "
            "be read; gzip was requested"
        )
    rooms = [limit] + [limit + PACKING_BYTES] * len(codings)  # the last that is undone comes first
    layers = [_LAYERS[one](room) for one, room in zip(codings, rooms, strict=False)]
    return layers[::-1]


def _too_large(limit: int) -> UpstreamPageError:
    return UpstreamPageError(f"the upstream's answer is larger than {limit} bytes")


def without_mark(body: bytes) -> bytes:
    """The body without the byte order marks that some put before UTF-8."""
    while body.startswith(codecs.BOM_UTF8):
        body = body.removeprefix(codecs.BOM_UTF8)
    return body


def foreign_charset(body: bytes) -> str | None:
    """The name of the encoding, where a body is UTF-16 or UTF-32 instead of UTF-8."""
    name = json.detect_encoding(body[:4])
    return None if name.startswith("utf-8") else name[:6].upper()


def describe(response: httpx.Response, body: bytes, redactor: Redactor) -> str:
    """What an answer is that is not what was asked for: its type and how it begins."""
    kind = printable(response.headers.get("content-type", ""), TYPE_LENGTH)
    kind = redactor.text(kind.partition(";")[0]) or "no content type"
    if not body:
        return f"{kind}, and empty"
    if body.startswith(_GZIP_BEGINS):
        return f"{kind}; it is compressed with gzip, without Content-Encoding"
    head = body[: _EXAMINED + redactor.reach]
    charset = foreign_charset(head)
    if charset is not None:
        kind = f"{kind} in {charset}"
        head = head.decode(json.detect_encoding(head[:4]), "replace").encode("utf-8", "replace")
    text = redactor.excerpt(head, _EXAMINED).decode("utf-8", "replace")
    # Once more, as leaving out what cannot be printed may have put a secret together.
    return (
        f"{kind}; it begins {redactor.text(printable(text, 4 * EXCERPT_LENGTH))[:EXCERPT_LENGTH]!r}"
    )


def printable(text: str, length: int) -> str:
    """The beginning of a text on one line, without what cannot be printed."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:length]
