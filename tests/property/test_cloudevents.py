"""CloudEvents as the CloudEvents project's own library reads them."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from service.domain.delivery.event_types import COURSE_EVENT_TYPES, OPERATIONAL_EVENT_TYPES
from service.domain.delivery.subscription import Format, Rendering
from service.domain.events.event import CONTENT_TYPES, CourseFacts, StoredEvent, render

texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=1, max_size=26)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
facts = st.builds(
    CourseFacts,
    external_id=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=3),
    remote_id=st.none() | texts,
    changed=st.lists(texts, max_size=3).map(tuple),
)
common = {
    "id": ids.map("evt_{}".format),
    "position": st.builds("{}-{}".format, st.integers(0, 2**42), st.integers(0, 2**16)),
    "sequence": st.integers(0, 2**53),
    "previous_sequence": st.none() | st.integers(0, 2**53),
}
course_events = st.builds(
    StoredEvent,
    **common,
    type=st.sampled_from(COURSE_EVENT_TYPES),
    integration_id=ids.map("int_{}".format),
    course_id=texts.filter(bool),
    facts=facts.map(msgspec.json.encode),
    course=st.none() | st.dictionaries(texts, json_values, max_size=4).map(msgspec.json.encode),
)
operational_events = st.builds(
    StoredEvent,
    **common,
    type=st.sampled_from((*OPERATIONAL_EVENT_TYPES, "coursewire.test")),
    integration_id=st.just("") | ids.map("int_{}".format),
    course_id=st.just(""),
    facts=st.dictionaries(ids, json_values, min_size=1, max_size=3).map(msgspec.json.encode),
    course=st.none(),
)
CLOUDEVENTS = [one for one in Rendering if one.format is Format.CLOUDEVENTS]


@pytest.mark.parametrize("rendering", CLOUDEVENTS)
@given(event=course_events | operational_events)
def test_the_official_library_reads_every_event(rendering, event):
    body = render(event, rendering)
    read = from_structured_event(
        HTTPMessage(headers={"content-type": CONTENT_TYPES[Format.CLOUDEVENTS]}, body=body)
    )
    assert isinstance(read, CloudEvent)  # of version 1.0, with every attribute validated
    standard = msgspec.json.decode(
        render(event, Rendering.FULL if rendering is CLOUDEVENTS[0] else Rendering.THIN)
    )
    assert read.get_data() == standard["data"]
    assert read.get_type() == standard["type"]
    assert read.get_time() == datetime.fromisoformat(standard["timestamp"])
    assert read.get_id() == standard["data"]["event_id"]
    assert (read.get_subject() or "") == event.course_id
    assert read.get_datacontenttype() == "application/json"
    assert event.integration_id in read.get_source()
    assert set(read.get_attributes()) <= {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype"),
    }
