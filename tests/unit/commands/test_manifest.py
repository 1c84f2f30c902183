"""Files that `coursewire apply` reads, and what it makes of the difference."""

from __future__ import annotations

import pytest

from service.commands.manifest.manifest_file import ManifestError, read_manifest
from service.commands.manifest.plan import HIDDEN, IDENTIFYING, plan


def test_references_come_from_the_environment():
    text = """
    subscriptions:
      - {description: a, url: "https://${HOST}/${PATH_}", headers: {authorization: "B ${T}"}}
      - {description: "$${T}", from: 2026-11-23T09:30:00Z}
    """
    found = read_manifest(text, {"HOST": "h", "PATH_": "p", "T": "${HOST}"}, IDENTIFYING)
    assert found == {
        "subscriptions": [
            {"description": "a", "url": "https://h/p", "headers": {"authorization": "B ${HOST}"}},
            {"description": "${T}", "from": "2026-11-23T09:30:00Z"},
        ]
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must contain integrations and subscriptions"),
        ("webhooks: []", "must contain integrations and subscriptions"),
        ("subscription: []", "nothing else: subscription (did you mean subscriptions?)"),
        ("integrations: [", "not YAML"),
        ("integrations: []\nintegrations: []", "given twice"),
        ("integrations: {a: b}", "integrations must be a list"),
        ("integrations: [{name: a}]", "integrations[0] has no external_id"),
        ("subscriptions: [{description: 5}]", "subscriptions[0] has no description"),
        ("subscriptions: [{description: a}, {description: a}]", "of an earlier item: a"),
        ("subscriptions: [{description: '${NO}'}]", "NO is not set in the environment"),
        ("subscriptions: [!!python/object:os.system {}]", "not YAML"),
    ],
)
def test_what_cannot_be_applied_is_refused_as_a_whole(text, said):
    with pytest.raises(ManifestError) as refused:
        read_manifest(text, {}, IDENTIFYING)
    assert said in str(refused.value)


SHOWN = {
    "id": "sub_1",
    "description": "a",
    "url": "https://example.com/",
    "event_types": ["course.updated", "course.created"],
    "labels": None,
    "headers": {"authorization": None},
    "client_certificate": {"subject": "CN=a"},
    "retry_schedule_seconds": [5, 60],
    "timeout_seconds": 15.0,
    "signature": "hmac",
}


def planned(item, *shown, kind="subscriptions", prune=False, secrets=False):
    return list(plan(kind, [item] if item else [], shown, prune=prune, secrets=secrets))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"event_types": ["course.created", "course.updated"]},
        {"headers": {"Authorization": "Bearer other"}, "client_certificate": {"certificate": "x"}},
        {"timeout_seconds": 15, "labels": None},
        {"secret": "whsec_x", "from": "oldest", "signature": "hmac"},  # of its creation
    ],
)
def test_what_is_so_already_is_left_alone(fields):
    (step,) = planned({"description": "a", **fields}, SHOWN)
    assert (step.action, step.id, step.error, step.body) == ("none", "sub_1", None, {})


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"url": "https://other/"}, {"url": "https://other/"}),
        ({"headers": {"x-other": "1"}}, {"headers": {"x-other": "1"}}),
        ({"client_certificate": None}, {"client_certificate": None}),
        ({"retry_schedule_seconds": [60, 5]}, {"retry_schedule_seconds": [60, 5]}),
        ({"signature": "ed25519"}, {"signature": "ed25519"}),  # the API says why not
    ],
)
def test_what_differs_is_changed_and_nothing_else(fields, body):
    (step,) = planned({"description": "a", "timeout_seconds": 15, **fields}, SHOWN)
    assert (step.action, step.body) == ("edit", body)


def test_secrets_are_sent_again_if_asked_and_never_shown():
    item = {"description": "a", "headers": {"Authorization": "hush"}, "secret": "whsec_hush"}
    (step,) = planned(item, SHOWN, secrets=True)
    assert step.body == {"headers": {"Authorization": "hush"}}
    assert step.differences["headers"].after == {"Authorization": HIDDEN}
    (made,) = planned({"url": "https://example.com/", **item})
    assert made.action == "create"
    assert "hush" not in str(made.differences)


def test_limits_that_are_left_out_stay():
    shown = {"id": "int_1", "external_id": "x", "guards": {"deleted_share": 0.3, "other": 1}}
    item = {"external_id": "x", "guards": {"deleted_share": 0.3}}
    assert planned(item, shown, kind="integrations")[0].action == "none"


@pytest.mark.parametrize(
    ("item", "shown", "said"),
    [
        ({"description": "a", "color": 1}, (SHOWN,), "color is not a field"),
        ({"description": "a", "heders": 1}, (SHOWN,), "subscriptions (did you mean headers?)"),
        ({"description": "b"}, (), "url is required"),
        ({"description": "a"}, (SHOWN, {**SHOWN, "id": "sub_2"}), "sub_1, sub_2 have the same"),
    ],
)
def test_what_cannot_be_done_is_the_error_of_its_item(item, shown, said):
    (step,) = planned(item, *shown)
    assert said in step.error


OWNED = {**SHOWN, "id": "sub_9", "owner": "key_1"}


def test_what_belongs_to_a_key_is_left_alone_unless_the_item_names_an_owner():
    (made,) = planned({"description": "a", "url": "https://example.com/"}, OWNED)
    assert made.action == "create"
    assert planned(None, OWNED, prune=True) == []
    (left,) = planned({"description": "a"}, OWNED, SHOWN, prune=True)
    assert (left.action, left.id, left.owner) == ("none", "sub_1", None)
    (found,) = planned({"description": "a", "owner": "key_1"}, OWNED, SHOWN, prune=True)
    assert (found.action, found.id, found.owner) == ("none", "sub_9", "key_1")
    (taken,) = planned({"description": "a", "owner": None}, OWNED)
    assert (taken.action, taken.body) == ("edit", {"owner": None})


def test_pruning_leaves_what_has_no_key():
    others = ({**SHOWN, "id": "sub_2", "description": "b"}, {**SHOWN, "description": None})
    assert planned({"description": "a"}, SHOWN, *others)[1:] == []
    (step,) = planned({"description": "a"}, SHOWN, *others, prune=True)[1:]
    assert (step.action, step.id) == ("delete", "sub_2")
