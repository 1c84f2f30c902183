"""Bodies of responses: decodes them within a limit, and describes them in words."""

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

MAX_CODINGS = 4  # codings of one response, nested
MAX_MEMBERS = 10_000  # members of one gzip body
PACKING_BYTES = 65_536  # by which a compressed body may be larger than its content
EXCERPT_LENGTH = 80  # characters of a body that an error quotes
TYPE_LENGTH = 60  # of its content type

# Values of `Content-Encoding` that need no decoding, correct or not.
_PLAIN = frozenset({"", "identity", "none", "utf-8", "utf8", "binary", "8bit", "aws-chunked"})
_GZIP_BEGINS = b"\x1f\x8b"
_ZLIB_METHOD = 8
_EXAMINED = 4_000  # bytes of a body that are searched for a quotation


class _Layer(ABC):
    """Decodes one coding, and returns at most `limit` bytes in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = limit + 1  # one byte more reveals that the limit is exceeded
        self._unpacker: zlib._Decompress | None = None
        self._waiting = b""  # too few bytes to determine the format

    @property
    def complete(self) -> bool:
        """Whether the compressed data is complete."""
        return self._unpacker is not None and self._unpacker.eof

    @abstractmethod
    def unpack(self, data: bytes) -> bytes:
        """The decoded bytes of the next part. Raises `UpstreamPageError`."""

    def _inflate(self, unpacker: zlib._Decompress, data: bytes) -> bytes:
        try:
            part = unpacker.decompress(data, self._room)
        except zlib.error as exc:
            raise UpstreamPageError("the upstream's compressed response is damaged") from exc
        self._room -= len(part)
        if not self._room:
            raise _too_large(self._limit)
        return part


class _Gzip(_Layer):
    """Members in sequence. Zeros after a member are padding, and any other bytes end the body, as
    gzip itself does."""

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
                    raise UpstreamPageError("the upstream's compressed response has too many parts")
                self._unpacker = zlib.decompressobj(wbits=31)
            parts.append(self._inflate(self._unpacker, data))
            data = self._unpacker.unused_data
        return b"".join(parts)


class _Deflate(_Layer):
    """The format of HTTP, or raw deflate as some servers send. Bytes after the end are ignored."""

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
    """Adds the decoded body to `parts` as it arrives.

    It may have `limit` bytes, and hardly more at each stage of decoding. Raises `UpstreamPageError`
    if it cannot be decoded or is larger.
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
        raise UpstreamPageError("the upstream's compressed response is incomplete")


def _layers(header: str, limit: int) -> list[_Layer]:
    """The decoders, in the order of decoding."""
    named = [one.partition(";")[0].strip().lower() for one in header.split(",")]
    codings = [one for one in named if one not in _PLAIN]
    if any(one not in _LAYERS for one in codings) or len(codings) > MAX_CODINGS:
        raise UpstreamPageError(
            f"the upstream's response is encoded as {printable(header, TYPE_LENGTH)!r}, which "
            "cannot be read; gzip was requested"
        )
    rooms = [limit] + [limit + PACKING_BYTES] * len(codings)  # the last coding is decoded first
    layers = [_LAYERS[one](room) for one, room in zip(codings, rooms, strict=False)]
    return layers[::-1]


def _too_large(limit: int) -> UpstreamPageError:
    return UpstreamPageError(f"the upstream's response is larger than {limit} bytes")


def without_mark(body: bytes) -> bytes:
    """The body without the byte order marks that some servers send before UTF-8."""
    while body.startswith(codecs.BOM_UTF8):
        body = body.removeprefix(codecs.BOM_UTF8)
    return body


def foreign_charset(body: bytes) -> str | None:
    """The name of the encoding, where a body is UTF-16 or UTF-32 instead of UTF-8."""
    name = json.detect_encoding(body[:4])
    return None if name.startswith("utf-8") else name[:6].upper()


def describe(response: httpx.Response, body: bytes, redactor: Redactor) -> str:
    """Describes an unexpected response: its type and its beginning."""
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
    # Redacted again, because removing unprintable characters may have joined a secret.
    return (
        f"{kind}; it begins {redactor.text(printable(text, 4 * EXCERPT_LENGTH))[:EXCERPT_LENGTH]!r}"
    )


def printable(text: str, length: int) -> str:
    """The beginning of a text on one line, without unprintable characters."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:length]
