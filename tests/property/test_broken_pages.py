"""Real pages, broken at random: nothing is raised but our own errors, and no event is invented."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from functools import cache
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.courses.change import Verdict
from service.domain.courses.deletion_mark import Deletion, deletion
from service.domain.courses.received import identify_records, unread
from service.domain.courses.salvage import items, members
from service.domain.errors import UpstreamError
from service.domain.polling.page import digest_page, judge_page
from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest
from service.sandbox.endpoint import Endpoint, Incoming

NOW = 1_795_424_000_000
UPSTREAM = "sandbox:demo"
COUNT = 10
CREDENTIAL = UpstreamCredential("http://127.0.0.1/v1", "sandbox-key")
NIGHTLY = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))

# --- pages, and what is done to them ---------------------------------------------------------


@cache
def real_page(seed: int) -> bytes:
    """A page as the sandbox gives it, of live and deleted courses."""
    endpoint = Endpoint(api_key="sandbox-key", rate_limit_per_minute=10**6, seed=seed)
    endpoint.catalogues[UPSTREAM] = catalogue = Catalogue(UPSTREAM, courses=COUNT, seed=seed)
    gone = list(catalogue.courses())[seed % COUNT].id
    catalogue.apply([ChangeRequest(op="delete", course_id=gone)], NOW - 86_400_000)
    query = urlencode({"page_size": COUNT, "include_deleted": "true"})
    headers = {"authorization": "Bearer sandbox-key", "x-integration-id": UPSTREAM}
    answer, _ = endpoint.answer(Incoming("GET", query, headers), NOW)
    return answer.body


def records_of(page: bytes) -> list[bytes]:
    return [bytes(one) for one in msgspec.json.decode(page, type=Envelope).data.results]


class Data(msgspec.Struct):
    results: list[msgspec.Raw]


class Envelope(msgspec.Struct):
    data: Data


class Edit(msgspec.Struct, frozen=True):
    """Replaces `length` bytes at a share of the page's length."""

    at: float
    length: int
    by: bytes


SPITEFUL = [
    b"NaN", b"-Infinity", b"null", b"false", b"0", b"1e999", b"\t", b"\x00", b"\\", b'"', b'\\"',
    b"\\x41", b"\\ud83d", b"\\u12", b"\xff", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b"{", b"}", b"[",
    b"]", b"},{", b"],[", b",", b",,", b":", b"'", b"/*", b"//", b"\n", b"[" * 3_000, b'""',
    b'"id":"other",', b'"remote_deleted_at":"",', b'"remote_deleted_at":"0001-01-01T00:00:00Z",',
]  # fmt: skip
edits = st.builds(
    Edit,
    at=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 3) | st.integers(0, 60),
    by=st.sampled_from(SPITEFUL) | st.binary(max_size=3),
)


def broken(page: bytes, what: list[Edit]) -> tuple[bytes, list[tuple[int, int]]]:
    """The page with edits, and where in it they are."""
    places: list[tuple[int, int]] = []
    for edit in what:
        at = int(edit.at * len(page))
        moved = len(edit.by) - min(edit.length, len(page) - at)
        page = page[:at] + edit.by + page[at + edit.length :]
        places = [
            (b + moved if b >= at else b, max(b, e + moved) if e >= at else e) for b, e in places
        ]
        places.append((at, at + len(edit.by)))
    return page, places


def fetched(body: bytes, status: int = 200, **headers: str) -> Page | None:
    """The page that a body is taken for; None where it is refused."""

    def answer(_request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, headers=named, stream=Body(body))

    async def fetch() -> Page:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await UpstreamClient(client).fetch_page(CREDENTIAL, UPSTREAM, PageQuery())

    try:
        return asyncio.run(fetch())
    except UpstreamError as error:
        assert str(error).isprintable()  # noqa: PT017 - whatever it is, it is shown to people
        return None


class Body(httpx.AsyncByteStream):
    """A body as it comes off the wire."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self):
        for begin in range(0, len(self._body), 4_096):
            yield self._body[begin : begin + 4_096]


def strict(text: bytes) -> Any:
    """What a strict parser reads; raises ValueError or RecursionError."""

    def refuse(_name: str) -> Any:
        raise ValueError

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    found = json.loads(text.decode(), parse_constant=refuse, parse_float=finite)
    json.dumps(found, ensure_ascii=False).encode()  # no half of a surrogate pair
    return found


def is_strict(text: bytes) -> bool:
    try:
        strict(text)
    except (ValueError, RecursionError):
        return False
    return True


# --- what must hold --------------------------------------------------------------------------


def known_of(page: bytes) -> dict[str, bytes]:
    records_seen, _ = identify_records([msgspec.Raw(one) for one in records_of(page)], NOW)
    judged, _ = judge_page(records_seen, [None] * len(records_seen), ())
    return {one.course_id: one.fingerprint.pack() for one in judged}


def assert_nothing_is_invented(seed: int, what: list[Edit]) -> None:
    page = real_page(seed)
    known = known_of(page)
    before = {one["id"]: one for one in map(strict, records_of(page))}
    body, places = broken(page, what)
    got = fetched(body, date="Mon, 23 Nov 2026 08:53:20 GMT")
    if got is None:
        return
    digest_page(got.results)
    records_seen, nameless = identify_records(got.results, NOW)
    stored = [known.get(one.course_id) for one in records_seen]
    judged, _ = judge_page(records_seen, stored, ())
    for one in judged:
        judgement = one
        if judgement.event_type is None:
            assert judgement.verdict is not Verdict.HELD
            continue
        record = strict(judgement.record)
        assert record["id"] == judgement.course_id
        assert was_edited(body, judgement.record, places)
        was = before.get(judgement.course_id)
        assert record != was
        match judgement.event_type:
            case "course.created":
                assert was is None or was["remote_deleted_at"] is not None
            case "course.updated":
                assert was is not None
            case "course.deleted":
                assert was is not None
                assert was["remote_deleted_at"] is None
                assert deletion(record["remote_deleted_at"], NOW) is Deletion.DONE
    if is_strict(body):
        return
    # What is there, untouched, is never missing from an answer that counts as whole.
    shown, doubtful = {one.course_id for one in records_seen}, unread(records_seen)
    for course_id, record in zip(before, records_of(page), strict=True):
        if record in body:
            assert course_id in shown or nameless or got.next is not None or course_id in doubtful


def was_edited(body: bytes, record: bytes, places: list[tuple[int, int]]) -> bool:
    begin = body.find(record)
    while begin >= 0:
        if any(b <= begin + len(record) and e >= begin for b, e in places):
            return True
        begin = body.find(record, begin + 1)
    return False


pages = st.integers(0, 5)


@given(pages, st.lists(edits, min_size=1, max_size=3))
def test_a_broken_page_invents_nothing(seed, what):
    assert_nothing_is_invented(seed, what)


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
@NIGHTLY
@given(pages, st.lists(edits, min_size=1, max_size=4))
def test_a_broken_page_invents_nothing_at_length(seed, what):
    assert_nothing_is_invented(seed, what)


def assert_one_record_is_one_record(seed: int, index: int, token: bytes) -> None:
    """Whatever a value in a record is replaced by, as long as its brackets and quotes match."""
    page = real_page(seed)
    known, records = known_of(page), records_of(page)
    spoilt = records[index].replace(b'"changed_at":"', b'"changed_at":' + token + b',"x":"', 1)
    got = fetched(page.replace(records[index], spoilt))
    assert got is not None
    assert [bytes(one) for one in got.results] == [*records[:index], spoilt, *records[index + 1 :]]
    records_seen, nameless = identify_records(got.results, NOW)
    assert nameless == 0
    stored = [known[one.course_id] for one in records_seen]
    judged, unchanged = judge_page(records_seen, stored, ())
    assert unchanged == len(records) - 1
    expected = [Verdict.QUARANTINED]
    if is_strict(spoilt):
        expected = [Verdict.REFRESHED]
    if strict(records[index])["remote_deleted_at"] is not None:
        expected.append(Verdict.RECORDED)  # nothing of it is ever sent
    assert judged[0].verdict in expected


bounded = st.recursive(
    st.sampled_from([one for one in SPITEFUL if not set(one) & set(b'"{}[]\\,')])
    | st.text("\t\x00é😀ab]}{[,:\\n", max_size=5).map(
        lambda one: b'"' + one.replace("\\", "\\\\").encode() + b'"'
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: b"[" + b",".join(parts) + b"]"),
    max_leaves=5,
)


@given(pages, st.integers(0, COUNT - 1), bounded)
def test_a_bounded_token_costs_its_own_record(seed, index, token):
    assert_one_record_is_one_record(seed, index, token)


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
@NIGHTLY
@given(pages, st.integers(0, COUNT - 1), bounded)
def test_a_bounded_token_costs_its_own_record_at_length(seed, index, token):
    assert_one_record_is_one_record(seed, index, token)


# --- bodies of any kind ----------------------------------------------------------------------

codings = st.lists(
    st.sampled_from(["gzip", "deflate", "identity", "br", "utf-8", "none", "", "x-gzip"]),
    max_size=3,
).map(", ".join)
ERROR = b'{"status":"error","error":{"code":"PLATFORM.AUTHENTICATION_INVALID","message":"m"}}'


def assert_only_our_own_errors(
    status: int, coding: str, what: list[Edit], *, is_error: bool, packed: bool
) -> None:
    body = ERROR if is_error else real_page(0)
    whole = gzip.compress(body, mtime=0) if packed else body
    got = fetched(broken(whole, what)[0], status, content_encoding=coding)
    if got is not None:
        assert status == 200
        assert all(isinstance(one, msgspec.Raw) for one in got.results)


statuses = st.sampled_from([200, 200, 204, 302, 400, 401, 404, 429, 500, 503])


@given(statuses, codings, st.lists(edits, max_size=2), st.booleans(), st.booleans())
def test_any_answer_is_a_page_or_one_of_our_errors(status, coding, what, is_error, packed):
    assert_only_our_own_errors(status, coding, what, is_error=is_error, packed=packed)


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
@NIGHTLY
@given(statuses, codings, st.lists(edits, max_size=3), st.booleans(), st.booleans())
def test_any_answer_is_a_page_or_one_of_our_errors_at_length(
    status, coding, what, is_error, packed
):
    assert_only_our_own_errors(status, coding, what, is_error=is_error, packed=packed)


# --- parting valid JSON ----------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab"\\[]{},:é😀\n', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
indents = st.sampled_from([None, 0, 1])


@given(st.lists(anything, max_size=6), indents, st.booleans())
def test_of_a_valid_list_the_items_are_those_that_a_decoder_finds(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert items(text) == [bytes(one) for one in msgspec.json.decode(text, type=list[msgspec.Raw])]


@given(st.dictionaries(st.text(max_size=6), anything, max_size=6), indents, st.booleans())
def test_of_a_valid_object_the_members_are_those_that_a_decoder_finds(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    decoded = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    assert members(text) == {name: bytes(one) for name, one in decoded.items()}
