from __future__ import annotations

import msgspec
import pytest

from service.api.access.auth_throttle import MAX_ADDRESSES, MAX_FAILURES, WINDOW_SECONDS, Failures
from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.delivery.subscription import Matcher, Subscription
from service.domain.errors import TooManyFailuresError
from service.domain.events.event import EventFilter, StoredEvent

BY_ID = Grant(integration_ids=("int_a",))
BY_LABELS = Grant(labels={"tenant": "a"})
BOTH = Grant(integration_ids=("int_b",), labels={"tenant": "a"})


def a_key(grant: Grant = BY_LABELS, **fields) -> ApiKey:
    return ApiKey(
        **{
            "id": "key_a",
            "name": "a",
            "scope": Scope.SUBSCRIBER,
            "created_at": 1,
            "updated_at": 1,
            "grant": grant,
            **fields,
        }
    )


def matched(*api_keys: ApiKey, now_ms: int = 5, owner: str | None = "key_a", **event) -> bool:
    subscription = Subscription(
        id="sub_a",
        url="https://r.example/",
        created_at=1,
        updated_at=1,
        owner=owner,
        event_types=("course.updated", "integration.review_required"),
    )
    outboxes = Matcher(1, [subscription], api_keys, now_ms).outboxes(
        **{
            "event_type": "course.updated",
            "integration_id": "int_a",
            "labels": {"tenant": "a", "region": "eu"},
            "changed": (),
            **event,
        }
    )
    return bool(outboxes)


@pytest.mark.parametrize(
    ("grant", "integration_id", "labels", "covered"),
    [
        (BY_ID, "int_a", {}, True),
        (BY_ID, "int_b", {"tenant": "a"}, False),
        (BY_LABELS, "int_a", {"tenant": "a", "region": "eu"}, True),
        (BY_LABELS, "int_a", {"tenant": "b"}, False),
        (BY_LABELS, "int_a", {}, False),
        (BOTH, "int_b", {}, True),
        (BOTH, "int_c", {"tenant": "a"}, True),
        (BOTH, "int_c", {}, False),
        (Grant(), "int_a", {"tenant": "a"}, False),
        (Grant(labels={}), "int_a", {}, False),
    ],
)
def test_a_grant_covers_what_it_names_and_what_carries_its_labels(
    grant, integration_id, labels, covered
) -> None:
    assert grant.covers(integration_id, labels) is covered


def test_an_outbox_gets_what_its_owner_is_granted() -> None:
    assert matched(a_key())
    assert not matched(a_key(BY_ID), integration_id="int_b")
    assert not matched(a_key(Grant()))


def test_an_outbox_whose_owner_is_gone_gets_nothing() -> None:
    assert not matched()
    assert not matched(a_key(id="key_b"))
    assert matched(owner=None)


def test_an_outbox_of_a_subscriber_gets_no_operational_events() -> None:
    assert not matched(a_key(), event_type="integration.review_required")
    assert matched(owner=None, event_type="integration.review_required")


def test_an_expired_key_grants_nothing_and_the_snapshot_knows_when() -> None:
    assert matched(a_key(expires_at=6))
    assert not matched(a_key(expires_at=5))
    matcher = Matcher(1, [], [a_key(expires_at=6), a_key(id="key_b")], 5)
    assert (matcher.has_expired(5), matcher.has_expired(6)) == (False, True)
    assert not Matcher(1, [], [a_key()], 5).has_expired(10**15)


def test_events_are_filtered_by_the_labels_they_carry() -> None:
    event = StoredEvent(
        id="evt_1",
        position="1-0",
        type="course.created",
        integration_id="int_a",
        course_id="c1",
        sequence=1,
        previous_sequence=None,
        facts=b'{"labels": {"tenant": "a"}, "changed": []}',
        course=None,
    )
    assert EventFilter(grant=BY_LABELS).takes(event)
    assert EventFilter(grant=BY_ID).takes(event)
    assert not EventFilter(grant=Grant(labels={"tenant": "b"})).takes(event)
    assert not EventFilter(grant=BY_LABELS, types=frozenset({"course.deleted"})).takes(event)
    other = msgspec.structs.replace(event, type="integration.review_required", course_id="")
    assert not EventFilter(grant=BY_LABELS).takes(other)
    assert EventFilter().takes(other)


# --- wrong tokens ---------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def fail(failures: Failures, times: int, address: str = "10.0.0.1") -> list[bool]:
    return [failures.note(address) for _ in range(times)]


def test_the_last_failure_that_is_allowed_is_told_of_and_the_next_refused() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert fail(failures, MAX_FAILURES) == [False] * (MAX_FAILURES - 1) + [True]
    clock.now += 20
    with pytest.raises(TooManyFailuresError) as refused:
        failures.note("10.0.0.1")
    assert refused.value.retry_after == WINDOW_SECONDS - 20
    failures.note("10.0.0.2")


def test_failures_are_forgotten_with_their_window() -> None:
    clock = Clock()
    failures = Failures(clock)
    fail(failures, MAX_FAILURES)
    clock.now += WINDOW_SECONDS
    assert fail(failures, MAX_FAILURES)[-1]


def test_bursts_are_told_of_once_in_a_window_whoever_they_come_from() -> None:
    failures = Failures(Clock())
    assert fail(failures, MAX_FAILURES)[-1]
    assert not any(fail(failures, MAX_FAILURES, "10.0.0.2"))


def test_all_addresses_of_an_ipv6_network_are_one() -> None:
    failures = Failures(Clock())
    for number in range(MAX_FAILURES):
        failures.note(f"2001:db8::{number:x}")
    with pytest.raises(TooManyFailuresError):
        failures.note("2001:db8::ffff")
    failures.note("2001:db8:0:1::1")


def test_no_number_of_addresses_takes_more_memory() -> None:
    failures = Failures(Clock())
    first = [f"first-{number}" for number in range(10)]
    for host in first * (MAX_FAILURES - 1):
        failures.note(host)
    for number in range(MAX_ADDRESSES):
        failures.note(f"host-{number}")
    for host in first * (MAX_FAILURES - 1):  # each is forgotten, or it would be refused
        failures.note(host)
