"""The fields of subscriptions in requests and responses: their kinds and meanings."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from service.api.fields.kinds import (
    A_TIME,
    MOMENT,
    IntegrationIds,
    Labels,
    means,
    one_of,
    read_moment,
    read_signing_secret,
    text,
)
from service.api.fields.refusals import Refusal
from service.api.fields.urls import read_url, url
from service.domain.courses.tracked_paths import TRACKED_PATHS
from service.domain.delivery.event_types import EVENT_TYPE_PATTERNS, EVENT_TYPES
from service.domain.delivery.subscription import Format, Payload
from service.domain.signatures.signing import MAX_SECRET_BYTES, MIN_SECRET_BYTES

MAX_RETRIES = 20
MAX_RETRY_DELAY = 86_400
MAX_CONCURRENCY = 100
MIN_RATE = 0.001  # pushes per second: one in 17 minutes
MAX_RATE = 10_000
MAX_TIMEOUT_SECONDS = 60
SPARE_SECONDS = 3_600  # added to all delays: the time that attempts and queueing may take

MAX_OVERLAP_SECONDS = 604_800
OVERLAP_SECONDS = 86_400
NOW: Final = "now"
OLDEST: Final = "oldest"
_SECONDS = {"unit": "seconds"}

Url = Annotated[
    str, url(read_url, "https://example.com/webhooks"), means("the URL that events are posted to")
]
Description = Annotated[
    Annotated[str, text(1_000, lines=True)] | None, means("the purpose of the subscription")
]
WantedTypes = Annotated[
    Annotated[
        tuple[Annotated[str, one_of((*EVENT_TYPES, *EVENT_TYPE_PATTERNS))], ...],
        Meta(min_length=1, max_length=len(EVENT_TYPES)),
    ]
    | None,
    means(
        "only these types; course.*, integration.*, subscription.* and * (all) include the types "
        "of later releases too; null: course.*; operational events are sent only if included "
        "here; `integration_ids` and `labels` do not filter events about subscriptions"
    ),
]
WantedIntegrations = Annotated[
    IntegrationIds | None, means("only events of these; null: events of all integrations")
]
WantedLabels = Annotated[
    Labels | None,
    means("null: any; else only events of integrations that carry all of these labels"),
]
WantedChanges = Annotated[
    Annotated[
        tuple[Annotated[str, one_of(TRACKED_PATHS)], ...],
        Meta(min_length=1, max_length=len(TRACKED_PATHS)),
    ]
    | None,
    means(
        "null: any; else course.updated events only if they name one of these paths; other events "
        "are not filtered"
    ),
]
PAYLOAD = means("full: with the course; thin: without it")
WantedPayload = Annotated[Payload, PAYLOAD]
FORMAT = means(
    "standard: as documented under Webhooks; cloudevents: a structured CloudEvent 1.0 with "
    "the same data"
)
WantedFormat = Annotated[Format, FORMAT]
Concurrency = Annotated[
    int,
    Meta(ge=1, le=MAX_CONCURRENCY),
    means("the maximum number of concurrent pushes"),
]
Rate = Annotated[
    Annotated[float, Meta(ge=MIN_RATE, le=MAX_RATE, extra={"unit": "per second"})] | None,
    means("null: no limit; else how many pushes may start per second"),
]
Timeout = Annotated[
    float,
    Meta(ge=1, le=MAX_TIMEOUT_SECONDS, extra=_SECONDS),
    means("the maximum duration of one attempt, including the response body"),
]
RETRY_SCHEDULE = means(
    "the wait after each failure, ±20 %; if the last retry fails, the delivery becomes dead"
)
RetrySchedule = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=MAX_RETRY_DELAY, extra=_SECONDS)], ...],
    Meta(min_length=0, max_length=MAX_RETRIES, extra={"repeats": True}),
    RETRY_SCHEDULE,
]
Paused = Annotated[bool, means("whether sending is paused; events are queued meanwhile")]
Overlap = Annotated[
    int,
    Meta(ge=0, le=MAX_OVERLAP_SECONDS, extra=_SECONDS),
    means(
        "how long the current secrets continue to sign beside the new one; 0 revokes them at once"
    ),
]
Secret = Annotated[
    str,
    Meta(extra={"read": read_signing_secret}),
    means(
        "the secret that signs pushes; one is generated if it is left out. whsec_ and base64 of "
        f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes for hmac; whsk_ and base64 of a private "
        "key's 32-byte seed, or of seed and public half, for ed25519",
        format="signing-secret",
        writeOnly=True,
    ),
]


def _read_beginning(value: Any) -> str | int:
    if value in (NOW, OLDEST):
        return str(value)
    try:
        return read_moment(value)
    except Refusal:
        raise Refusal(
            "is neither now nor oldest nor a time in RFC 3339 nor a date", A_TIME
        ) from None


_BEGINNING = {"oneOf": [{"type": "string", "enum": [NOW, OLDEST]}, MOMENT]}
Beginning = Annotated[
    str | int,
    Meta(extra_json_schema=_BEGINNING, extra={"read": _read_beginning}),
    means(
        "the events that its outbox starts with: now (default): none; oldest: every "
        "matching event that is still kept; a time: the matching events since then. "
        "They are sent first, in order"
    ),
]
