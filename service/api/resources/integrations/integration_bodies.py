"""The fields of integrations in requests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, UnsetType

from service.api.fields import samples
from service.api.fields.kinds import Several, means
from service.api.fields.readers import Fields
from service.api.resources.credentials import UpstreamKey, UpstreamUrl
from service.api.resources.filtering import STATES, ListQuery, NamePart, named
from service.api.resources.integrations.integration_fields import (
    CredentialId,
    DeltaInterval,
    ExternalId,
    FirstReport,
    FullInterval,
    IgnoredPaths,
    Name,
    OwnLabels,
    Paused,
    TrackRemoteData,
    UpstreamId,
)
from service.api.resources.integrations.integration_views import IntegrationView
from service.domain.polling.integration import Integration, IntegrationState
from service.domain.review.guards import Guards

_CREDENTIAL_REMEDY = "change its credential: PATCH /v1/credentials/{credential_id}"

_Share = Annotated[float, Meta(ge=0, le=1, extra={"unit": "1 disables this limit"})]


class GuardLimits(Fields, frozen=True, kw_only=True):
    """The limits above which changes are held."""

    defaults: ClassVar = Guards
    deleted_count: Annotated[
        Annotated[int, Meta(ge=0, le=10_000_000)] | UnsetType,
        means("deleted_share holds nothing up to this number of deletions"),
    ] = UNSET
    deleted_share: Annotated[
        _Share | UnsetType,
        means(
            "deletions are held if they exceed this share of the live courses and "
            "deleted_count; 1 disables this limit, and deleted_share_max still applies"
        ),
    ] = UNSET
    deleted_share_max: Annotated[
        _Share | UnsetType,
        means(
            "deletions are held if they exceed this share of the live courses, in a "
            "catalogue of any size; 1 disables this limit, and deleted_share still applies"
        ),
    ] = UNSET
    changed_count: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | UnsetType,
        means("changed_share holds nothing below this number of courses"),
    ] = UNSET
    changed_share: Annotated[
        _Share | UnsetType,
        means(
            "changes of one path are held if they affect more than this share of the live "
            "courses and at least changed_count; 1 disables this limit"
        ),
    ] = UNSET


class _Settings(Fields, frozen=True, kw_only=True):
    """The fields of registrations and changes."""

    shown: ClassVar = IntegrationView
    name: Name | UnsetType = UNSET
    upstream_id: UpstreamId | UnsetType = UNSET
    credential_id: Annotated[
        CredentialId | UnsetType,
        means("the credential to use; or send base_url and api_key"),
    ] = UNSET
    external_id: ExternalId | UnsetType = UNSET
    labels: OwnLabels | UnsetType = UNSET
    delta_interval_seconds: DeltaInterval | UnsetType = UNSET
    full_interval_seconds: FullInterval | UnsetType = UNSET
    baseline: FirstReport | UnsetType = UNSET
    ignore_paths: IgnoredPaths | UnsetType = UNSET
    track_remote_data: TrackRemoteData | UnsetType = UNSET
    guards: Annotated[
        GuardLimits | UnsetType,
        means(
            "the limits above which the changes of one poll are held for review; omitted "
            "limits keep their values"
        ),
    ] = UNSET
    paused: Paused | UnsetType = UNSET


class IntegrationChange(_Settings, frozen=True, kw_only=True):
    """The changed fields of an integration."""

    fixed: ClassVar = {"base_url": _CREDENTIAL_REMEDY, "api_key": _CREDENTIAL_REMEDY}
    examples: ClassVar = {
        "guards": ("Another limit for deletions", {"guards": {"deleted_share": 0.3}}),
        "pause": ("Stop polling it", {"paused": True}),
    }


class IntegrationCheck(_Settings, frozen=True, kw_only=True):
    """Values to check."""

    defaults: ClassVar = Integration
    examples: ClassVar = {
        "inline": (
            "Before there is a credential",
            {
                "base_url": "https://api.kombo.dev/v1",
                "api_key": "KEY",
                "upstream_id": samples.UPSTREAM,
            },
        )
    }
    upstream_id: UpstreamId
    base_url: Annotated[
        UpstreamUrl | UnsetType,
        means("instead of credential_id: the upstream's base URL", writeOnly=True),
    ] = UNSET
    api_key: Annotated[
        UpstreamKey | UnsetType,
        means(
            "instead of credential_id: the upstream's API key; a credential with the same base_url "
            "and api_key is reused",
            writeOnly=True,
        ),
    ] = UNSET


class IntegrationCreate(IntegrationCheck, frozen=True, kw_only=True):
    """A new integration."""

    examples: ClassVar = {
        "inline": (
            "With the values of a credential",
            {
                "name": "Workday of Acme",
                "base_url": "https://api.kombo.dev/v1",
                "api_key": "KEY",
                "upstream_id": samples.UPSTREAM,
                "external_id": "tenant-42",
                "labels": {"region": "eu"},
            },
        ),
        "shared": (
            "With a credential that others share",
            {
                "name": "Moodle of Acme",
                "credential_id": samples.CREDENTIAL,
                "upstream_id": "moodle:3xQv7WmXk2Yc8RtLbN5pZsHd",
                "baseline": "emit",
            },
        ),
    }
    name: Name


class IntegrationQuery(ListQuery, frozen=True, kw_only=True):
    """The filters of integrations."""

    state: Annotated[Several[IntegrationState] | UnsetType, STATES] = UNSET
    name: Annotated[NamePart | UnsetType, named("their name or external_id")] = UNSET
