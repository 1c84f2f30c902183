"""What a hostile receiver answers: the bytes, those that it adds unasked, and how it goes on.

Each kind belongs to one letter. A: answers that nobody asked for. H: a status that is clear, in a
head or before a body that is not. I: bodies and codings that are not what they seem to be.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from tests.chaos.wire import accepts

BOM: Final = b"\xef\xbb\xbf"


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `stray` follows it unasked, `after` so many seconds; `greeting` is what the
    server sends first on its next connection. Then the connection stays, is closed, or reset."""

    answer: bytes
    stray: bytes = b""
    after: float = 0.0
    greeting: bytes = b""
    then: Literal["stay", "close", "reset"] = "stay"


Maker = Callable[[random.Random], Script]

NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"
TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
PLAIN: Final = (NO_CONTENT, OK, FAILED)
STRAY: Final = (b"XX", b"\r\n", b"HTTP/1.1 2", b"HTTP/1.1 204 No Content\r\n", b"\0", b"0\r\n\r\n")
DELAYS: Final = (0.0, 0.002, 0.01, 0.03, 0.1, 0.3)
STATUSES: Final = (
    b"204 No Content", b"200 OK", b"202 Accepted", b"299 ", b"500 Internal Server Error",
    b"503 Service Unavailable",
)  # fmt: skip


def answer(status: bytes, *fields: bytes, body: bytes | None = b"") -> bytes:
    """An answer; with a body of None it does not say how long that is."""
    if body is not None and not status.startswith(b"204"):
        fields = (*fields, b"content-length: %d" % len(body))
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n" + (body or b"")


# --- A: unasked ------------------------------------------------------------------------------


def again(chance: random.Random) -> Script:
    """The answer comes twice."""
    said = chance.choice(PLAIN)
    return Script(answer=said, stray=said, after=chance.choice(DELAYS))


def unasked(chance: random.Random) -> Script:
    """Another answer follows, and what the first one said counts."""
    stray = chance.choice((NO_CONTENT, NO_CONTENT, TIMED_OUT, FAILED))
    then: Literal["stay", "close"] = chance.choice(("stay", "stay", "close"))
    return Script(answer=chance.choice(PLAIN), stray=stray, after=chance.choice(DELAYS), then=then)


def stray_bytes(chance: random.Random) -> Script:
    """Something follows that is no answer."""
    return Script(
        answer=chance.choice(PLAIN), stray=chance.choice(STRAY), after=chance.choice(DELAYS)
    )


def greeted(chance: random.Random) -> Script:
    """The next connection begins with something that nobody asked for."""
    greeting = chance.choice((NO_CONTENT, TIMED_OUT, FAILED, *STRAY))
    return Script(answer=NO_CONTENT, greeting=greeting, then="close")


# --- H: a status that is clear ---------------------------------------------------------------


def many_fields(chance: random.Random) -> Script:
    """The head has more fields than usual."""
    fields = [b"x-field-%d: %d" % (number, number) for number in range(chance.choice((129, 400)))]
    return Script(answer=answer(chance.choice(STATUSES), *fields))


def long_field(chance: random.Random) -> Script:
    """A field of the head is longer than usual."""
    field = b"set-cookie: " + b"c" * chance.choice((9_000, 40_000))
    return Script(answer=answer(chance.choice(STATUSES), field))


def body_of_none(chance: random.Random) -> Script:
    """A 204 has a body, announced or not."""
    body = chance.choice((b"ok", b'{"ok":true}', b"\r\n", b"\0"))
    fields = chance.choice(((), (b"content-length: %d" % len(body),)))
    return Script(answer=answer(b"204 No Content", *fields), stray=body)


def malformed_field(chance: random.Random) -> Script:
    """After the status line comes something that is no header field."""
    field = chance.choice((
        b"no field at all", b": no name", b"a name: with a blank", b"x\0y: z", b"\xff\xfe: 1",
        b"name : blank", b" folded", b"x: \0", b"x: a\rb",
    ))  # fmt: skip
    then: Literal["stay", "close"] = chance.choice(("stay", "close"))
    return Script(answer=answer(chance.choice(STATUSES), field), then=then)


def cut_short(chance: random.Random) -> Script:
    """The answer ends too early, in the midst of its status line or later."""
    whole = answer(chance.choice(STATUSES), b"server: cut", body=b"a body of some length")
    cut = whole[: chance.randrange(1, len(whole))]
    return Script(answer=cut, then=chance.choice(("stay", "close", "reset")))


def broken_chunks(chance: random.Random) -> Script:
    """The body's chunks are none."""
    chunks = chance.choice((
        b"ZZ\r\nok\r\n0\r\n\r\n", b"5\r\nok\r\n0\r\n\r\n", b"2\r\nok", b"-1\r\n", b"2\r\nokXX\r\n",
        b"fffffffffffffffff\r\nok", b"0\r\nx: y",
    ))  # fmt: skip
    head = answer(chance.choice(STATUSES[1:]), b"transfer-encoding: chunked", body=None)
    return Script(answer=head + chunks, then=chance.choice(("stay", "close")))


def odd_status_line(chance: random.Random) -> Script:
    """The status line is no good, or barely."""
    line = chance.choice((
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 OK 200", b"HTTP/1.1 -204 OK", b"204",
        b"HTTP/9.9 204 OK", b"ICY 200 OK", b"HTTP/1.1 204", b"HTTP/1.0 200 OK",
        b"HTTP/1.1 500 200 OK", b"HTTP/1.1 0204 OK", b"HTTP/1.1 \xb2\xb0\xb4 OK",
    ))  # fmt: skip
    return Script(answer=line + b"\r\ncontent-length: 0\r\n\r\n", then="close")


def interim(chance: random.Random) -> Script:
    """Interim answers come first."""
    first = chance.choice((
        b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    ))  # fmt: skip
    return Script(answer=first + chance.choice(PLAIN))


def contradicting_lengths(chance: random.Random) -> Script:
    """The head says more than once, or nonsensically, how long the body is."""
    fields = chance.choice((
        (b"content-length: 2", b"content-length: 3"), (b"content-length: -2",),
        (b"content-length: 2", b"transfer-encoding: chunked"), (b"content-length: 2, 2",),
        (b"transfer-encoding: gibberish",), (b"content-length: two",), (b"content-length: +2",),
    ))  # fmt: skip
    head = answer(chance.choice(STATUSES[1:]), *fields, body=None)
    return Script(answer=head + b"ok", then="close")


# --- I: bodies and codings -------------------------------------------------------------------


def odd_body(chance: random.Random) -> Script:
    """The body is not what its head says, or nothing at all."""
    packed = gzip.compress(b'{"ok":true}')
    fields, body = chance.choice((
        ((), BOM + b'{"ok":true}'), ((), b"\0" * 100), ((), b"\xff\xfe\xfd"), ((), b"x" * 20_000),
        ((b"content-encoding: gzip",), b"not packed"), ((b"content-encoding: gzip",), packed * 2),
        ((b"content-encoding: gzip",), packed + b"\0"), ((b"content-encoding: none",), b"ok"),
        ((b"content-encoding: utf-8",), b"ok"), ((b"content-encoding: gzip, br",), b"ok"),
        ((b"content-type: ",), b"ok"), ((b"content-type: text/html; charset=nonsense",), b"\xe9"),
        ((b"content-encoding: gzip",), packed[:10]),
    ))  # fmt: skip
    return Script(answer=answer(chance.choice(STATUSES[1:]), *fields, body=body))


HOSTILE: Final[Sequence[tuple[str, Maker]]] = (
    ("A", again), ("A", again), ("A", unasked), ("A", unasked), ("A", stray_bytes), ("A", greeted),
    ("H", many_fields), ("H", long_field), ("H", body_of_none), ("H", malformed_field),
    ("H", cut_short), ("H", broken_chunks), ("H", odd_status_line), ("H", interim),
    ("H", contradicting_lengths), ("I", odd_body),
)  # fmt: skip
"""What is done on request, with the letter that it belongs to."""

_BORNE: Final[Sequence[Maker]] = (
    many_fields, long_field, body_of_none, malformed_field, interim, odd_body,
)  # fmt: skip


def odd_success(chance: random.Random) -> Script:
    """An answer that is odd and says success: whoever sent the request has to take it so."""
    while True:
        script = chance.choice(_BORNE)(chance)
        if accepts(script.answer):
            return script
