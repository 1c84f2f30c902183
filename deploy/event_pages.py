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

The body of an event in the default format is a JSON object with `type`, `timestamp` (when
Coursewire created the event) and `data`. [Receive events](receiving-events.md) explains how to
verify and store events.

Coursewire sends a course event to every subscription whose filters match. A subscription of a
`subscriber` key receives only the course events that the key may see.

To receive operational events (`integration.*` and `subscription.*`), include them in the
`event_types` of the subscription. The filters `integration_ids` and `labels` do not apply to
`subscription.*`. Coursewire sends no event about a subscription to that subscription. A
subscription of a `subscriber` key can receive operational events only about other subscriptions
of the key.

Operational events have no `sequence`. Coursewire sends the operational events about one
integration, or about one subscription, in order. Coursewire neither stores nor retries
`coursewire.test`.

## Fields of course events

"""


def event_types(webhooks: dict[str, Any]) -> str:
    """Every event with its fields and an example, from the webhooks of the OpenAPI document."""
    parts = [_INTRODUCTION, _table(_fields(webhooks["course.updated"])[0])]
    for name, item in webhooks.items():
        fields, example = _fields(item)
        meaning = item["post"]["description"].partition(" Answer with ")[0]
        parts.append(f"\n## `{name}`\n\n{meaning}\n")
        if not name.startswith("course."):
            parts.append(f"\n{_table(fields)}")
        shown = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
        parts.append(f"\n```json\n{shown}\n```\n")
    return "".join(parts)


def with_files(page: Path) -> str:
    """A page whose marked blocks hold the files beside it that they name."""
    return _FILE.sub(
        lambda found: found[1] + (page.parent / found[2]).read_text(), page.read_text()
    )


def _fields(item: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    content = item["post"]["requestBody"]["content"][CONTENT_TYPES[Format.STANDARD]]
    (example,) = content["examples"].values()
    return content["schema"]["properties"]["data"]["properties"], example["value"]


def _table(fields: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {one['description']} |\n" for name, one in fields.items()]
    return "".join(["| field | meaning |\n|---|---|\n", *rows])
