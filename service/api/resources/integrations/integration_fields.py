"""The fields of integrations in requests and responses: their kinds and meanings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from service.api.fields import samples
from service.api.fields.kinds import Labels, identifier, means, one_of, text, visible
from service.domain.courses.tracked_paths import TRACKED_PATHS
from service.domain.polling.integration import Baseline

MAX_DELTA_INTERVAL = 86_400
MAX_FULL_INTERVAL = 13 * 86_400  # tombstones are anonymised after 14 days
_SECONDS = {"unit": "seconds"}

Name = Annotated[str, text(200), means("a name for people")]
UpstreamId = Annotated[
    str, visible(200, samples.UPSTREAM), means("its X-Integration-Id at the upstream")
]
ExternalId = Annotated[
    Annotated[str, text(200)] | None, means("your own name for it, repeated in every event")
]
OwnLabels = Annotated[Labels, means("your own labels, repeated in every event, to filter by")]
DeltaInterval = Annotated[
    int,
    Meta(ge=1, le=MAX_DELTA_INTERVAL, extra=_SECONDS),
    means("the time between delta polls, which request changed courses"),
]
FullInterval = Annotated[
    int,
    Meta(ge=1, le=MAX_FULL_INTERVAL, extra=_SECONDS),
    means("the time between full polls, which request all courses"),
]
FIRST_REPORT = means(
    "emit: the courses of the first complete full poll are reported as created; silent: they are "
    "not reported"
)
FirstReport = Annotated[Baseline, FIRST_REPORT]
IGNORED_PATHS = means("paths whose changes are not reported")
IgnoredPaths = Annotated[
    tuple[Annotated[str, one_of(TRACKED_PATHS)], ...],
    Meta(min_length=0, max_length=len(TRACKED_PATHS)),
    IGNORED_PATHS,
]
TrackRemoteData = Annotated[bool, means("whether changes of remote_data are reported")]
Paused = Annotated[bool, means("whether polling is paused")]
CredentialId = Annotated[str, identifier("cred")]
