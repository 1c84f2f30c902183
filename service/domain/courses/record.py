"""Upstream records as typed structs: the parts of a course that Coursewire uses.

Fields that are not named here pass through to subscribers untouched and are not tracked.
Enumerations are open strings, free-form objects are any JSON, because the upstream publishes
neither as closed. A list that is null means the same as an empty one.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Head(msgspec.Struct, frozen=True, gc=False):
    """The fields that identify any record, even tombstones and anonymised ones."""

    id: str
    remote_deleted_at: str | None = None


class Identity(msgspec.Struct, frozen=True, gc=False):
    """A course's names in other systems; a tombstone may have lost them."""

    remote_id: str | None = None
    origin_id: str | None = None


class IntegrationField(msgspec.Struct, frozen=True):
    """A passthrough field, identified by its key; the value may be any JSON."""

    key: str
    type: str | None = None
    value: Any = None
    label: str | None = None


class Provider(msgspec.Struct, frozen=True, gc=False):
    """The provider of the course."""

    id: str
    remote_id: str | None = None
    name: str | None = None


class Skill(msgspec.Struct, frozen=True, gc=False):
    """A skill that a revision teaches."""

    id: str
    remote_id: str | None = None
    name: str | None = None


class SkillAssignment(msgspec.Struct, frozen=True, gc=False):
    """The link from a revision to a skill."""

    skill: Skill


class Revision(msgspec.Struct, frozen=True):
    """One version of a course's content."""

    id: str
    remote_id: str | None
    title: str | None
    description: str | None
    remote_url: str | None
    status: str | None
    remote_created_at: str | None
    remote_deleted_at: str | None
    remote_data: Any = None
    custom_fields: Any = None
    integration_fields: list[IntegrationField] | None = None
    skill_assignments: list[SkillAssignment] | None = None


class Course(msgspec.Struct, frozen=True):
    """A live course with all nested records."""

    id: str
    remote_id: str
    provider_id: str | None
    origin_id: str | None
    remote_created_at: str | None
    provider: Provider | None
    revisions: list[Revision] | None
    remote_data: Any = None
    custom_fields: Any = None
    integration_fields: list[IntegrationField] | None = None
