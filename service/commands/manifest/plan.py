"""Computes the changes that bring the API to the state in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from service.commands.manifest.manifest_file import did_you_mean
from service.commands.resources.declarations import RESOURCES
from service.commands.resources.operations import Field, Operation, operations

Item = Mapping[str, Any]
HIDDEN = "***"  # for a field that no response returns


# The kinds in a file, and the field that identifies an item.
IDENTIFYING: Final = {"integrations": "external_id", "subscriptions": "description"}


def operation(kind: str, verb: str) -> Operation:
    """The API operation of a verb of a kind."""
    return operations()[RESOURCES[kind].verbs[verb].operation]


class Difference(NamedTuple):
    """A field's present value, and its value in the file."""

    before: Any
    after: Any


class Step(msgspec.Struct):
    """The change of one item."""

    kind: str
    key: str
    action: str  # create, edit, delete or none: a verb of its kind
    id: str | None = None
    owner: str | None = None  # the API key that owns the existing resource
    differences: dict[str, Difference] = {}
    error: str | None = None
    body: dict[str, Any] = {}  # the fields to send


def plan(
    kind: str, wanted: Sequence[Item], shown: Sequence[Item], *, prune: bool, secrets: bool
) -> Iterator[Step]:
    """The steps of one kind. `prune` deletes resources whose key is not in the file; `secrets`
    sends fields again that cannot be compared. Resources of an API key are left alone, unless an
    item names an `owner`."""
    by_key: dict[str | None, list[Item]] = {}
    for one in shown:
        by_key.setdefault(one[IDENTIFYING[kind]], []).append(one)
    for item in wanted:
        found = _found(item, by_key.pop(item[IDENTIFYING[kind]], []))
        yield _step(kind, item, found, secrets=secrets)
    if prune:
        for key, those in by_key.items():
            for one in those:
                if key is not None and one.get("owner") is None:
                    yield Step(kind, key, "delete", one["id"])


def _found(item: Item, named_so: Sequence[Item]) -> Sequence[Item]:
    """The resources that an item can mean: those of its owner or else, if the item names
    an owner, those of any owner."""
    owned = [one for one in named_so if one.get("owner") == item.get("owner")]
    return owned or (named_so if "owner" in item else [])


def _step(kind: str, item: Item, found: Sequence[Item], *, secrets: bool) -> Step:
    create, change = operation(kind, "create"), operation(kind, "edit")
    step = Step(kind, item[IDENTIFYING[kind]], "none")
    problems = [
        f"{name} is not a field of {kind}{did_you_mean(name, create.body)}"
        for name in item
        if name not in create.body
    ]
    if len(found) > 1:
        ids = ", ".join(one["id"] for one in found)
        problems.append(f"{ids} have the same {IDENTIFYING[kind]}: change all except one")
    elif found:
        step.id, step.owner = found[0]["id"], found[0].get("owner")
        step.differences = _differences(item, found[0], create, change, secrets=secrets)
        step.action = "edit" if step.differences else "none"
    else:
        problems += [
            f"{name} is required: {field.description}"
            for name, field in create.body.items()
            if field.required and name not in item
        ]
        step.action = "create"
        step.differences = {
            name: _difference(create.body.get(name), None, one) for name, one in item.items()
        }
    step.error = "; ".join(problems) or None
    step.body = {name: item[name] for name in step.differences}
    return step


def _differences(
    item: Item, shown: Item, create: Operation, change: Operation, *, secrets: bool
) -> dict[str, Difference]:
    """The fields that differ from the file. Fields that are sent only at creation and never
    returned, such as an API key, cannot differ."""
    return {
        name: _difference(create.body.get(name), shown.get(name), one)
        for name, one in item.items()
        if (name in change.body or name in shown)
        and (
            (secrets and name in change.body and change.body[name].secret)
            or not _is_same(change.body.get(name), one, shown.get(name))
        )
    }


def _is_same(field: Field | None, wanted: Any, shown: Any) -> bool:
    match wanted, shown:
        case dict(), dict() if field is not None and field.secret:
            return bool(field.names) or {str(name).lower() for name in wanted} == set(shown)
        case dict(), dict() if field is not None and field.names:
            return all(name in shown and shown[name] == one for name, one in wanted.items())
        case list(), list() if field is not None and not field.numbers:
            return sorted(map(str, wanted)) == sorted(map(str, shown))
    return bool(wanted == shown)


def _difference(field: Field | None, before: Any, after: Any) -> Difference:
    if field is None or not field.secret:
        if field is not None and field.names and isinstance(before, dict):
            before = {name: before.get(name) for name in after}
        return Difference(before, after)
    return Difference(before, dict.fromkeys(after, HIDDEN) if isinstance(after, dict) else HIDDEN)
