from __future__ import annotations

import json
from itertools import product

import msgspec
import pytest

from service.domain.delivery.subscription import Format, Payload, Rendering
from service.domain.events.event import MAX_BODY_BYTES, CourseFacts, StoredEvent, render, rfc3339

POSITION = "1795424001123-7"
EVENT_ID = "evt_01m83sr733000726vafvwsrmbh"
# Spacing, key order and numbers that a decoder would not give back as they came.
COURSE = b'{"id":"c1", "b": 1.50, "a":"\xc3\xa9\\u00e9", "n":1e3}'
FACTS = CourseFacts(
    integration_id="int_a",
    upstream_id="workday:1",
    external_id="tenant-42",
    labels={"region": "eu", "Ä": "\u2028"},
    course_id="c1",
    remote_id="32",
    origin_id=None,
    changed=("provider", "revisions.title"),
    reason=None,
    evidence=None,
    initial=False,
    detected_by="delta",
)
DATA_FIELDS = [
    "schema_version",
    "event_id",
    "integration_id",
    "upstream_id",
    "external_id",
    "labels",
    "course_id",
    "remote_id",
    "origin_id",
    "sequence",
    "previous_sequence",
    "changed",
    "reason",
    "evidence",
    "initial",
    "detected_by",
    "course_omitted",
    "course",
]


def event(
    course: bytes | None = COURSE, facts: CourseFacts | bytes = FACTS, **fields
) -> StoredEvent:
    return StoredEvent(
        **{
            "id": EVENT_ID,
            "position": POSITION,
            "type": "course.updated",
            "integration_id": "int_a",
            "course_id": "c1",
            "sequence": 1_795_424_001_123,
            "previous_sequence": 1_795_300_000_007,
            "facts": facts if isinstance(facts, bytes) else msgspec.json.encode(facts),
            "course": course,
        }
        | fields
    )


def test_a_body_is_exactly_as_published():
    assert (
        render(event(), Rendering.FULL)
        == (
            '{"type":"course.updated","timestamp":"2026-11-23T08:53:21.123Z","data":{'
            f'"schema_version":1,"event_id":"{EVENT_ID}",'
            '"integration_id":"int_a","upstream_id":"workday:1","external_id":"tenant-42",'
            '"labels":{"region":"eu","Ä":"\u2028"},'
            '"course_id":"c1","remote_id":"32","origin_id":null,'
            '"sequence":1795424001123,"previous_sequence":1795300000007,'
            '"changed":["provider","revisions.title"],'
            '"reason":null,"evidence":null,"initial":false,"detected_by":"delta",'
            '"course_omitted":null,"course":'
        ).encode()
        + COURSE
        + b"}}"
    )


def test_fields_come_in_the_published_order():
    body = json.loads(render(event(), Rendering.FULL))

    assert list(body) == ["type", "timestamp", "data"]
    assert list(body["data"]) == DATA_FIELDS


@pytest.mark.parametrize("rendering", Rendering)
def test_the_same_event_and_rendering_always_give_the_same_bytes(rendering):
    assert len({render(event(), rendering) for _ in range(5)}) == 1


def test_every_payload_comes_in_every_format():
    assert {(one.payload, one.format) for one in Rendering} == set(product(Payload, Format))


def test_a_thin_body_leaves_the_course_out_and_nothing_else():
    full, thin = (json.loads(render(event(), one)) for one in (Rendering.FULL, Rendering.THIN))

    assert thin["data"].pop("course_omitted") == "thin"
    assert full["data"].pop("course_omitted") is None
    del full["data"]["course"]
    assert thin == full


@pytest.mark.parametrize("rendering", Rendering)
def test_a_deleted_course_is_gone_whatever_the_rendering(rendering):
    gone = msgspec.structs.replace(FACTS, evidence="absence", changed=())

    data = json.loads(render(event(None, gone, type="course.deleted"), rendering))["data"]

    assert (data["course_omitted"], data["evidence"]) == ("gone", "absence")
    assert "course" not in data
    assert list(data) == DATA_FIELDS[:-1]


def sized(over: int, rendering: Rendering) -> StoredEvent:
    """An event whose full body is `over` bytes above the limit."""
    rest = len(render(event(b'""'), rendering)) - 2
    return event(b'"' + b"x" * (MAX_BODY_BYTES + over - rest - 2) + b'"')


FULL = [Rendering.FULL, Rendering.FULL_CLOUDEVENT]


@pytest.mark.parametrize("rendering", FULL)
def test_a_body_of_the_largest_size_carries_its_course(rendering):
    body = render(sized(0, rendering), rendering)

    assert len(body) == MAX_BODY_BYTES == 256 * 1024
    assert json.loads(body)["data"]["course_omitted"] is None


@pytest.mark.parametrize("rendering", FULL)
def test_a_larger_body_goes_without_its_course(rendering):
    data = json.loads(render(sized(1, rendering), rendering))["data"]

    assert data["course_omitted"] == "size"
    assert list(data) == DATA_FIELDS[:-1]


def test_a_thin_body_of_a_large_course_is_thin():
    body = render(sized(1, Rendering.FULL), Rendering.THIN)

    assert json.loads(body)["data"]["course_omitted"] == "thin"


def test_the_first_event_of_a_course_has_no_sequence_before_it():
    data = json.loads(render(event(previous_sequence=None), Rendering.FULL))["data"]

    assert data["previous_sequence"] is None


def test_an_initial_event_says_so_and_names_no_changes():
    first = msgspec.structs.replace(FACTS, initial=True, changed=(), detected_by="full")

    data = json.loads(render(event(facts=first, type="course.created"), Rendering.FULL))["data"]

    assert (data["initial"], data["changed"], data["detected_by"]) == (True, [], "full")


OPERATIONAL = event(
    None,
    type="integration.baseline_completed",
    course_id="",
    sequence=0,
    previous_sequence=None,
    facts=b'{"integration_id":"int_a","records":10}',
)


@pytest.mark.parametrize("rendering", [Rendering.FULL, Rendering.THIN])
def test_an_operational_event_carries_its_own_data(rendering):
    body = render(OPERATIONAL, rendering)

    assert (
        body
        == (
            '{"type":"integration.baseline_completed","timestamp":"2026-11-23T08:53:21.123Z",'
            f'"data":{{"schema_version":1,"event_id":"{EVENT_ID}",'
            '"integration_id":"int_a","records":10}}'
        ).encode()
    )


def test_a_cloud_event_is_exactly_as_published():
    data = render(event(), Rendering.FULL).partition(b'"data":')[2]

    assert render(event(), Rendering.FULL_CLOUDEVENT) == (
        f'{{"specversion":"1.0","id":"{EVENT_ID}","source":"/v1/integrations/int_a",'
        '"type":"course.updated","subject":"c1","time":"2026-11-23T08:53:21.123Z",'
        '"datacontenttype":"application/json","data":'
    ).encode() + (data)


def test_an_operational_cloud_event_has_no_subject():
    assert (
        render(OPERATIONAL, Rendering.THIN_CLOUDEVENT)
        == (
            f'{{"specversion":"1.0","id":"{EVENT_ID}","source":"/v1/integrations/int_a",'
            '"type":"integration.baseline_completed","time":"2026-11-23T08:53:21.123Z",'
            '"datacontenttype":"application/json",'
            f'"data":{{"schema_version":1,"event_id":"{EVENT_ID}",'
            '"integration_id":"int_a","records":10}}'
        ).encode()
    )


def test_an_event_of_no_integration_comes_from_the_service_itself():
    body = render(
        msgspec.structs.replace(OPERATIONAL, integration_id=""), Rendering.FULL_CLOUDEVENT
    )

    assert json.loads(body)["source"] == "/v1"


def test_text_beyond_ascii_goes_out_as_utf8():
    named = msgspec.structs.replace(FACTS, remote_id='名前 "quoted" \x00 🎓')

    body = render(event(facts=named), Rendering.FULL)

    assert json.loads(body.decode())["data"]["remote_id"] == '名前 "quoted" \x00 🎓'
    assert "🎓".encode() in body


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_424_001_007, "2026-11-23T08:53:21.007Z"),
        (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc3339_in_utc_with_milliseconds(milliseconds, text):
    assert rfc3339(milliseconds) == text
