"""What a hostile upstream makes of an answer: wrong in ways that a client can notice.

None of it turns a record into a valid one that says something else, since that is something no
client could know. Letters: B, tokens that are no JSON; C, nonsensical marks of deletion; D, wrong
clocks; H, heads; I, codings and first bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any, Final

import msgspec

Field = tuple[bytes, bytes]

BOM: Final = b"\xef\xbb\xbf"
DAY: Final = 86_400
_PLACE: Final = "here-goes-the-token"
_ID: Final = re.compile(rb'"([1-9A-HJ-NP-Za-km-z]{24})"')
# Written over the beginning of an id, which keeps its length.
_FOREIGN: Final = (
    b"a,b", b"Org/Run/", b"a b", b"../", b"%2F", b"a?b#", b"\xc3\xbc\xe2\x82\xac", b"+&=", b"a:b;",
    b"'", b"{x}", b"*",
)  # fmt: skip


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; its length and connection are not among the fields."""

    status: int
    fields: tuple[Field, ...]
    body: bytes

    def written(self) -> bytes:
        """The answer as it is sent."""
        return self.head(len(self.body)) + self.body

    def head(self, length: int) -> bytes:
        """The head of an answer with a body of this length."""
        fields = (*self.fields, (b"content-length", b"%d" % length))
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"HTTP/1.1 %d Answer\r\n%b\r\n" % (self.status, lines)

    def with_field(self, name: bytes, value: bytes | None) -> Reply:
        """The same with this field; without it, for None."""
        fields = tuple(field for field in self.fields if field[0] != name)
        if value is not None:
            fields = (*fields, (name, value))
        return msgspec.structs.replace(self, fields=fields)


Mangler = Callable[[random.Random, Reply], Reply | None]
"""Makes another answer of one; None where it does not apply."""

# --- F: foreign ids --------------------------------------------------------------------------


class ForeignIds:
    """Replaces one identifier in ten by one with characters that have a meaning elsewhere.

    It depends on the identifier alone, keeps the number of bytes, and touches all identifiers of
    a record alike.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def give(self, text: bytes) -> bytes:
        """Some JSON with foreign identifiers."""
        return _ID.sub(lambda found: b'"%b"' % self._foreign(found[1]), text)

    def _foreign(self, identifier: bytes) -> bytes:
        draw = hashlib.blake2b(identifier, digest_size=2).digest()
        if draw[0] % 10:
            return identifier
        start = _FOREIGN[draw[1] % len(_FOREIGN)]
        foreign = start + identifier[len(start) :]
        self._known[foreign.decode()] = identifier.decode()
        return foreign

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known)

    def of(self, identifier: str) -> str:
        """What stands for an identifier."""
        return self._foreign(identifier.encode()).decode()

    def real(self, identifier: str) -> str:
        """What an identifier stands for at the sandbox."""
        return self._known.get(identifier, identifier)

    def real_list(self, listed: str) -> str:
        """A list of ids, joined by commas, as the sandbox knows them. As at a real upstream, an
        id with a comma is two."""
        return ",".join(map(self.real, listed.split(",")))


# --- B: no JSON ------------------------------------------------------------------------------

_TOKENS: Final[Sequence[bytes]] = (
    b"NaN", b"Infinity", b"-Infinity", b'"a\tb"', b'"a\nb"', b'"a\0b"', b'"\\x41"', b'"\\ud83d"',
    b'"\\udc00\\ud83d"', b'"\xff\xfe"', b'"\xc3"', b'"\xed\xa0\xbd"', b"01", b"+1", b".5", b"1.",
    b"0x10", b"undefined", b"True", b"'single'", b'"\\u00g0"', b"-", b"nul",
)  # fmt: skip
# Deeper than any supported Python decodes: 3.13 decodes 10,000 levels.
_DEEP: Final = (b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 15_000 + b"1" + b"}" * 15_000)


def bad_token(chance: random.Random, reply: Reply) -> Reply | None:
    """One record, or what leads to the next page, holds a token that is no JSON."""
    page = _page(reply)
    if page is None:
        return None
    data = page["data"]
    where = chance.choice(("id", "title", "remote_id", "remote_data", "provider", "new", "next"))
    if where == "next":
        data["next"] = _PLACE
    elif data["results"]:
        _put(chance.choice(data["results"]), where)
    else:
        return None
    token = chance.choice(_TOKENS)
    if where == "remote_data" and chance.random() < 0.3:
        token = chance.choice(_DEEP)
    return _with_body(reply, page, token)


def bad_record(chance: random.Random, reply: Reply) -> Reply | None:
    """One record holds such a token, and the page goes on as it should."""
    page = _page(reply)
    if page is None or not page["data"]["results"]:
        return None
    _put(chance.choice(page["data"]["results"]), chance.choice(("title", "remote_data", "new")))
    return _with_body(reply, page, chance.choice(_TOKENS))


def _put(record: dict[str, Any], where: str) -> None:
    match where:
        case "title" if isinstance(record["revisions"], list) and record["revisions"]:
            record["revisions"][0]["title"] = _PLACE
        case "remote_data":
            record["remote_data"] = {"score": _PLACE}
        case "provider" if record["provider"]:
            record["provider"]["name"] = _PLACE
        case "id" | "remote_id":
            record[where] = _PLACE
        case _:
            record["what_will_come"] = _PLACE


def _page(reply: Reply) -> dict[str, Any] | None:
    """The page that an answer is, if it is a whole one."""
    if reply.status != 200 or any(name == b"content-encoding" for name, _ in reply.fields):
        return None
    try:
        page = json.loads(reply.body)
    except ValueError:
        return None
    return page if isinstance(page["data"]["results"], list) else None


def _with_body(reply: Reply, page: dict[str, Any], token: bytes = b"") -> Reply:
    """The answer with this page, in which `token` takes its place."""
    body = json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()
    return msgspec.structs.replace(reply, body=body.replace(b'"%b"' % _PLACE.encode(), token))


# --- C: marks --------------------------------------------------------------------------------

_MARKS: Final[Sequence[Any]] = (
    "", " ", "0000-00-00 00:00:00", "0001-01-01T00:00:00Z", "false", "null", "0", "never", False, 0,
    [], {}, "9999-12-31T23:59:59.999Z", "2093-05-06T07:08:09.000Z", "2023-02-30T00:00:00Z",
)  # fmt: skip


def nonsense_mark(chance: random.Random, reply: Reply) -> Reply | None:
    """A live record says that it was deleted, at no time that makes sense."""
    page = _page(reply)
    if page is None:
        return None
    live = [
        record
        for record in page["data"]["results"]
        if record.get("remote_deleted_at") is None and record.get("remote_id") is not None
    ]
    if not live:
        return None
    chance.choice(live)["remote_deleted_at"] = chance.choice(_MARKS)
    return _with_body(reply, page)


# --- D: clocks -------------------------------------------------------------------------------


def wrong_date(chance: random.Random, reply: Reply) -> Reply:
    """The answer is dated by days or years off, or by nothing that can be read."""
    now = time.time()
    dates = (
        *(now + days * DAY for days in (-20, -2, 2, 20, 20_000)), 0.0, 253_402_300_799.0,
    )  # fmt: skip
    date = formatdate(chance.choice(dates), usegmt=True).encode()
    odd = (None, b"", b"yesterday", b"2026-11-23T09:30:00Z", b"Thu, 99 Foo 2026 25:61:61 GMT")
    return reply.with_field(b"date", chance.choice((date, date, date, *odd)))


# --- H: heads --------------------------------------------------------------------------------


def large_head(chance: random.Random, reply: Reply) -> Reply:
    """The head is larger than usual."""
    more: tuple[Field, ...]
    if chance.random() < 0.5:
        more = ((b"set-cookie", b"c" * chance.choice((9_000, 40_000))),)
    else:
        count = chance.choice((129, 400))
        more = tuple((b"x-field-%d" % number, b"%d" % number) for number in range(count))
    return msgspec.structs.replace(reply, fields=(*reply.fields, *more))


def malformed_field(chance: random.Random, reply: Reply) -> Reply:
    """The head has something that is no field."""
    fields = ((b"", b"no name"), (b"a name", b"x"), (b"x\0y", b"z"), (b"x", b"\0"))
    return msgspec.structs.replace(reply, fields=(*reply.fields, chance.choice(fields)))


# --- I: codings and first bytes --------------------------------------------------------------


def byte_order_mark(chance: random.Random, reply: Reply) -> Reply:
    """The body begins with a byte order mark."""
    return msgspec.structs.replace(reply, body=BOM + reply.body)


def members(chance: random.Random, reply: Reply) -> Reply | None:
    """The body is compressed in two members, perhaps padded with zeros."""
    if any(name == b"content-encoding" for name, _ in reply.fields):
        return None
    cut = chance.randrange(len(reply.body) + 1)
    body = gzip.compress(reply.body[:cut], 1) + gzip.compress(reply.body[cut:], 1)
    body += b"\0" * chance.choice((0, 0, 1, 512))
    packed = msgspec.structs.replace(reply, body=body)
    return packed.with_field(b"content-encoding", chance.choice((b"gzip", b"x-gzip", b"GZIP")))


def odd_coding(chance: random.Random, reply: Reply) -> Reply:
    """The body's coding is unusual, or not what is said of it."""
    packed = gzip.compress(reply.body, 1)
    coding, body = chance.choice((
        (b"utf-8", reply.body), (b"none", reply.body), (b"identity, identity", reply.body),
        (b"identity, gzip", packed), (b"gzip, gzip", gzip.compress(packed, 1)), (b"br", reply.body),
        (b"gzip", reply.body), (b"gzip", packed[: len(packed) // 2]), (b"gzip", packed + b"junk"),
        (b"", reply.body), (b"deflate", reply.body),
    ))  # fmt: skip
    return msgspec.structs.replace(reply, body=body).with_field(b"content-encoding", coding)


def no_page(chance: random.Random, reply: Reply) -> Reply:
    """Something else answers."""
    status, fields, body = chance.choice((
        (302, ((b"location", b"/login"),), b""), (200, ((b"content-type", b"text/html"),), b"<p>"),
        (200, (), b""), (204, (), b""), (200, (), BOM), (503, (), BOM + b'{"status":"error"}'),
        (200, (), b"null"), (200, (), b"[]"), (200, (), b'{"status":"success","data":null}'),
    ))  # fmt: skip
    return Reply(status=status, fields=fields, body=body)


HOSTILE: Final[Sequence[tuple[str, Mangler]]] = (
    ("B", bad_token), ("B", bad_record), ("C", nonsense_mark), ("C", nonsense_mark),
    ("D", wrong_date), ("H", large_head), ("H", malformed_field), ("I", byte_order_mark),
    ("I", members), ("I", odd_coding), ("I", no_page),
)  # fmt: skip
"""What is done on request, with the letter that it belongs to."""

_BORNE: Final[Sequence[Mangler]] = (byte_order_mark, members)


def odd_page(chance: random.Random, reply: Reply) -> Reply:
    """An answer that a client has to make the best of, every time: its clock is wrong, its head is
    large, its first bytes are odd, and one of its records is no good."""
    spoilt = chance.choice((bad_record, nonsense_mark))(chance, reply) or reply
    shown = chance.choice(_BORNE)(chance, spoilt) or spoilt
    return large_head(chance, wrong_date(chance, shown))
