"""The pages for receivers: the reference of events, and the receivers as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES

_FILE = re.compile(r"(<!-- file: (\S+) -->\n\n```\w+\n).*?(?=```)", re.DOTALL)
_INTRODUCTION = """# Event types

The body of an event in the default format is a JSON object with `type`, `timestamp` and `data`.
`timestamp` is the time at which Coursewire created the event.
[Receive events](receiving-events.md) explains how to verify and store events. The
[glossary](glossary.md) defines terms such as upstream, baseline, epoch and review.

A subscription receives the course events that match its filters. A subscription of a `subscriber`
key receives only the course events that the key may see.

To receive operational events (`integration.*` and `subscription.*`), include them in the
`event_types` of the subscription. The filters `integration_ids` and `labels` do not apply to
`subscription.*`. Coursewire does not send a `subscription.*` event to the subscription that the
event is about. A subscription of a `subscriber` key can receive operational events only about other
subscriptions of the key.

Operational events have no `sequence`. Coursewire sends the operational events about one
integration, or about one subscription, in order. Coursewire neither stores nor retries
`coursewire.test`.

## Fields of course events

"""


def event_types(webhooks: dict[str, Any]) -> str:
    """Every event with its fields and an example, from the webhooks of the OpenAPI document."""
    shared = {kind: _shared(webhooks, kind) for kind in ("course", "integration", "subscription")}
    parts = [_INTRODUCTION, _table(shared["course"])]
    parts.extend(
        f"\n## Common fields of `{kind}.*` events\n\nEach `{kind}.*` event has these fields. "
        f"The section of an event type lists the other fields of the type.\n\n{_table(fields)}"
        for kind, fields in shared.items()
        if kind != "course"
    )
    for name, item in webhooks.items():
        fields, example = _fields(item)
        meaning = item["post"]["description"].partition(" Answer with ")[0]
        parts.append(f"\n## `{name}`\n\n{meaning}\n")
        common = shared.get(name.partition(".")[0], {})
        if own := {field: one for field, one in fields.items() if field not in common}:
            parts.append(f"\n{_table(own)}")
        shown = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
        parts.append(f"\n```json\n{shown}\n```\n")
    return "".join(parts)


def with_files(page: Path) -> str:
    """A page whose marked blocks hold the files beside it that they name."""
    return _FILE.sub(
        lambda found: found[1] + (page.parent / found[2]).read_text(), page.read_text()
    )


def _shared(webhooks: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields that all events of a kind have."""
    first, *rest = (
        _fields(one)[0] for name, one in webhooks.items() if name.startswith(f"{kind}.")
    )
    return {field: one for field, one in first.items() if all(field in other for other in rest)}


def _fields(item: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    content = item["post"]["requestBody"]["content"][CONTENT_TYPES[Format.STANDARD]]
    (example,) = content["examples"].values()
    return content["schema"]["properties"]["data"]["properties"], example["value"]


def _table(fields: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {one['description']} |\n" for name, one in fields.items()]
    return "".join(["| field | meaning |\n|---|---|\n", *rows])
