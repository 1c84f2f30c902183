from __future__ import annotations

import pytest

from service.domain.delivery.event_types import (
    COURSE_EVENT_TYPES,
    EVENT_TYPES,
    OPERATIONAL_EVENT_TYPES,
    includes,
)
from service.domain.delivery.subscription import (
    Format,
    Matcher,
    Outbox,
    Payload,
    Rendering,
    Subscription,
    SubscriptionState,
    state_of,
)


def subscription(**fields) -> Subscription:
    return Subscription(
        **{"id": "sub_a", "url": "https://example.com/", "created_at": 1, "updated_at": 1} | fields
    )


def matched(*subscriptions: Subscription, **event) -> list[str]:
    outboxes = Matcher(1, subscriptions).outboxes(
        **{
            "event_type": "course.updated",
            "integration_id": "int_a",
            "labels": {"region": "eu", "tier": "1"},
            "changed": ("provider", "revisions.title"),
        }
        | event
    )
    return [outbox.subscription_id for outbox in outboxes]


@pytest.mark.parametrize("event_type", COURSE_EVENT_TYPES)
def test_a_subscription_without_filters_gets_every_course_event(event_type):
    assert matched(subscription(), event_type=event_type) == ["sub_a"]


@pytest.mark.parametrize("event_type", OPERATIONAL_EVENT_TYPES)
def test_operational_events_come_only_when_named(event_type):
    assert matched(subscription(), event_type=event_type) == []
    assert matched(subscription(event_types=COURSE_EVENT_TYPES), event_type=event_type) == []
    assert matched(subscription(event_types=(event_type,)), event_type=event_type) == ["sub_a"]


@pytest.mark.parametrize("named", EVENT_TYPES)
def test_only_the_named_types_come(named):
    one = subscription(event_types=(named,))

    assert [kind for kind in EVENT_TYPES if matched(one, event_type=kind)] == [named]


LATER = ("course.archived", "integration.renamed", "subscription.moved", "billing.paid")


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("*", ""),
        ("course.*", "course."),
        ("integration.*", "integration."),
        ("subscription.*", "subscription."),
    ],
)
def test_a_pattern_includes_the_types_of_later_releases(pattern, prefix):
    one = subscription(event_types=(pattern,))
    kinds = (*EVENT_TYPES, *LATER)
    wanted = [kind for kind in kinds if kind.startswith(prefix)]
    assert [kind for kind in kinds if matched(one, event_type=kind)] == wanted
    assert [kind for kind in kinds if includes((pattern, "course.created"), kind)] == [
        kind for kind in kinds if kind.startswith(prefix) or kind == "course.created"
    ]


def test_no_filter_is_the_pattern_of_course_events():
    every = subscription(event_types=("course.*",))
    for kind in (*EVENT_TYPES, *LATER):
        assert matched(subscription(), event_type=kind) == matched(every, event_type=kind)


def test_an_empty_filter_matches_nothing():
    assert matched(subscription(event_types=())) == []
    assert matched(subscription(integration_ids=())) == []
    assert matched(subscription(changed=())) == []


def test_integrations_are_matched_by_id():
    assert matched(subscription(integration_ids=("int_b", "int_a"))) == ["sub_a"]
    assert matched(subscription(integration_ids=("int_b",))) == []


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (None, True),
        ({}, True),
        ({"region": "eu"}, True),
        ({"region": "eu", "tier": "1"}, True),
        ({"region": "us"}, False),
        ({"region": "eu", "tier": "2"}, False),
        ({"region": "eu", "other": "x"}, False),
        ({"other": ""}, False),
    ],
)
def test_all_labels_of_a_filter_must_be_there(labels, wanted):
    assert bool(matched(subscription(labels=labels))) is wanted


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (None, True),
        (("provider",), True),
        (("custom_fields", "revisions.title"), True),
        (("revisions",), False),
        (("custom_fields",), False),
    ],
)
def test_an_update_is_matched_by_any_of_the_paths_it_names(changed, wanted):
    assert bool(matched(subscription(changed=changed))) is wanted


@pytest.mark.parametrize("event_type", ["course.created", "course.deleted"])
def test_paths_filter_updates_only(event_type):
    one = subscription(changed=("custom_fields",))

    assert matched(one, event_type=event_type, changed=()) == ["sub_a"]


def test_filters_of_different_kinds_must_all_match():
    one = subscription(
        event_types=("course.updated",),
        integration_ids=("int_a",),
        labels={"region": "eu"},
        changed=("provider",),
    )

    assert matched(one) == ["sub_a"]
    assert matched(one, event_type="course.created") == []
    assert matched(one, integration_id="int_b") == []
    assert matched(one, labels={}) == []
    assert matched(one, changed=("custom_fields",)) == []


def test_a_snapshot_answers_each_event_by_itself():
    matcher = Matcher(
        1,
        [
            subscription(id="sub_a", integration_ids=("int_a",)),
            subscription(id="sub_b", changed=("provider",)),
            subscription(id="sub_c", event_types=("course.deleted",)),
        ],
    )

    def ask(event_type: str, integration_id: str, *changed: str) -> list[str]:
        outboxes = matcher.outboxes(
            event_type=event_type, integration_id=integration_id, labels={}, changed=changed
        )
        return [outbox.subscription_id for outbox in outboxes]

    for _ in range(2):
        assert ask("course.updated", "int_a", "provider") == ["sub_a", "sub_b"]
        assert ask("course.updated", "int_a", "custom_fields") == ["sub_a"]
        assert ask("course.updated", "int_b", "custom_fields") == []
        assert ask("course.deleted", "int_b") == ["sub_b", "sub_c"]
        assert ask("course.created", "int_a") == ["sub_a", "sub_b"]


def test_a_snapshot_follows_the_labels_an_integration_has_now():
    matcher = Matcher(1, [subscription(labels={"region": "eu"})])

    def ask(region: str) -> int:
        return len(
            matcher.outboxes(
                event_type="course.created",
                integration_id="int_a",
                labels={"region": region},
                changed=(),
            )
        )

    assert [ask("eu"), ask("us"), ask("eu")] == [1, 0, 1]


def test_an_outbox_has_the_rendering_of_its_subscription():
    wanted = {"payload": Payload.THIN, "format": Format.CLOUDEVENTS}
    (outbox,) = Matcher(1, [subscription(**wanted)]).outboxes(
        event_type="course.created", integration_id="int_a", labels={}, changed=()
    )

    assert outbox == Outbox("sub_a", Rendering.THIN_CLOUDEVENT, active=True)


def test_an_outbox_that_is_paused_goes_on_collecting():
    (outbox,) = Matcher(1, [subscription(paused=True)]).outboxes(
        event_type="course.created", integration_id="int_a", labels={}, changed=()
    )

    assert not outbox.active


def test_a_subscription_is_active_unless_paused():
    assert state_of(subscription()) is SubscriptionState.ACTIVE
    assert state_of(subscription(paused=True)) is SubscriptionState.PAUSED
    assert state_of(subscription(), parked=True) is SubscriptionState.PARKED
    assert state_of(subscription(paused=True), parked=True) is SubscriptionState.PAUSED
    gone = subscription(paused=True, disabled_reason="410")
    assert state_of(gone, parked=True) is SubscriptionState.DISABLED
