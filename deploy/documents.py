"""Writes the documents that follow from the code: run by `make docs`, and by the test of them."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from deploy.event_pages import event_types, with_files
from service.api.schema.document import METHODS, catalogue_table, published
from service.app import create_app
from service.commands.resources.operations import FILE, Field, Operation
from service.domain.observability import metrics as declared
from service.domain.observability.metrics import CounterMetric, GaugeMetric, HistogramMetric
from service.settings import SETTINGS, Settings

ROOT = Path(__file__).resolve().parent.parent
_WITH_VERSION = ("deploy/compose.yml", "deploy/kubernetes/kustomization.yaml")
_IMAGE = re.compile(r"(image: coursewire:|newTag: )[^\s}]+")
_IDENTIFIER = re.compile(r"\^[a-z]+_\[")  # how the pattern of an id begins
_PROBLEMS = """# Problems

The API reports an error as a problem document (RFC 9457) with the content type
`application/problem+json`. The `type` of a problem is `urn:coursewire:problem:` followed by a name
from the first column of the table. The API uses no other types. `detail` describes the error. A
`credential-in-use` problem also has `integration_count`, the number of integrations that use the
credential, and `integrations`, the first 20 of these integrations.

"""


_METRICS = """# Metrics

`/metrics` returns these metrics in the Prometheus or the OpenMetrics format. Every API process that
can read Redis returns the same values of the metrics in the first two tables. To aggregate these
metrics over API processes, use `max`, not `sum`.

`coursewire_redis_up`, the metrics in the last table and the `process_*` metrics describe the API
process that answers the scrape. If this process cannot read Redis, it returns no other metrics.

A scheduler claims due polls and outboxes, and queues them for the workers. If no worker begins or
continues the work, the claim expires, and the work is due again.

Counters and histograms of the whole system begin at zero when Redis restarts or fails over to a
replica. Counters and histograms of an API process begin at zero when the process starts.

"""


_SETTINGS = """# Settings

Every part of the service (API, worker or scheduler) reads these environment variables when it
starts. A part does not start if a value is invalid, if two values contradict each other, or if an
unknown environment variable begins with `COURSEWIRE_`. To read a secret from a file instead of a
variable, see [Secrets](operations/secrets.md#read-a-secret-from-a-file).

"""


def metrics_tables() -> str:
    """Every metric by what it is of, as tables."""
    groups: dict[str, Sequence[CounterMetric | GaugeMetric | HistogramMetric]] = {
        "The whole system": (*declared.GAUGES, *declared.COUNTERS, *declared.HISTOGRAMS),
        f"Single registrations: `/metrics?detail={','.join(declared.DETAILS)}`": (
            declared.OF_DETAILS
        ),
        "The process that answers": (declared.BUILD, declared.REQUESTS, declared.REQUEST_DURATION),
    }
    lines: list[str] = []
    for title, members in groups.items():
        lines += [f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for one in members:
            kind = type(one).__name__.removesuffix("Metric").lower()
            labels = ", ".join(f"`{label}`" for label in one.labels) or "-"
            meaning = one.help
            if isinstance(one, HistogramMetric):
                meaning += f" Buckets end at {', '.join(f'{bound:g}' for bound in one.bounds)}."
            lines.append(f"| `{declared.PREFIX}{one.name}` | {kind} | {labels} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def settings_table() -> str:
    """Every setting as a table."""
    rows = [
        f"| `{one.variable}` | {one.kind}{' (secret)' if one.secret else ''} "
        f"| {f'`{one.default}`' if one.default else '-'} | {one.meaning} |\n"
        for one in SETTINGS
    ]
    return "".join(["| variable | type or unit | default | meaning |\n|---|---|---|---|\n", *rows])


def with_version(path: str) -> str:
    """A file whose version of the image is that of pyproject.toml, its only source."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return _IMAGE.sub(rf"\g<1>{version}", (ROOT / path).read_text())


def documents() -> dict[str, str]:
    """The generated files: their paths in the repository, and their contents."""
    # No connection is opened; the API only requires a token and a key.
    app = create_app(Settings(admin_token="x" * 16, encryption_keys=(bytes(32),)))
    document = published(app, app.openapi_schema.to_schema())
    return {
        "docs/openapi.json": _formatted(document),
        "docs/problems.md": f"{_PROBLEMS}{catalogue_table()}\n",
        "docs/metrics.md": f"{_METRICS}{metrics_tables()}",
        "docs/settings.md": f"{_SETTINGS}{settings_table()}",
        **{path: with_version(path) for path in _WITH_VERSION},
        str(FILE.relative_to(ROOT)): _formatted(_operations(document)),
        "docs/event-types.md": event_types(document["webhooks"]),
        "docs/receiving-events.md": with_files(ROOT / "docs/receiving-events.md"),
    }


def _formatted(document: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def _operations(document: dict[str, Any]) -> dict[str, Operation]:
    """The facts that the commands need of the operations under `/v1`."""
    return {
        item[method]["operationId"]: _operation(document, path, method.upper(), item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if path.startswith("/v1/") and method in item
    }


def _operation(document: dict[str, Any], path: str, method: str, said: dict[str, Any]) -> Operation:
    parameters = said.get("parameters", ())
    condition = [one for one in parameters if one["name"] == "If-Match"]
    body: dict[str, Any] = {}
    if "requestBody" in said:
        name = said["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        body = document["components"]["schemas"][name.rpartition("/")[2]]
    return Operation(
        method=method,
        path=path,
        summary=said["summary"],
        description=said.get("description", ""),
        condition="".join("required" if one["required"] else "optional" for one in condition),
        query={
            one["name"]: _field(one["schema"], one["description"], required=one["required"])
            for one in parameters
            if one["in"] == "query"
        },
        body={
            name: _field(one, one["description"], required=name in body.get("required", ()))
            for name, one in body.get("properties", {}).items()
        },
    )


def _field(schema: dict[str, Any], description: str, *, required: bool) -> Field:
    kinds = schema.get("oneOf", [schema])
    taken = [one for one in kinds if one["type"] != "null"]
    first = taken[0]
    items = first.get("items", {})
    numbers = items.get("type") in ("integer", "number")
    plain = len(taken) == 1
    return Field(
        kind=first["type"],
        description=description,
        required=required,
        nullable=len(taken) < len(kinds),
        secret=schema.get("writeOnly", False),
        default=schema.get("default"),
        choices=tuple(items.get("enum") or first.get("enum", ())) if plain else (),
        commas=numbers or "enum" in items or bool(_IDENTIFIER.match(items.get("pattern", ""))),
        numbers=numbers,
        names=tuple(first.get("properties", ())),
    )


if __name__ == "__main__":
    for name, text in documents().items():
        (ROOT / name).write_text(text)
        sys.stdout.write(f"{name} is written\n")
