"""The effect of each kind of edit on a record, and whether `updated_after` detects it.

`changed_at` moves on the record whose own property changed: on the course for its own fields, on
the revision for the revision's. A change of provider or of a skill assignment moves nothing. Each
edit changes the value of its field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from service.sandbox.content import (
    ContentSource,
    Course,
    IntegrationField,
    Revision,
    SkillAssignment,
    format_time,
)


class InapplicableError(Exception):
    """The change cannot be made in the course's present state."""


class Stroke(NamedTuple):
    """The inputs of an edit: its number (unique within the integration), its time and content.

    `at` is the time that the record carries, `made_at` the true one (both in ms).
    """

    number: int
    at: int
    made_at: int
    content: ContentSource

    @property
    def time(self) -> str:
        """`at` as the upstream writes it."""
        return format_time(self.at)


def _with_field(
    fields: tuple[IntegrationField, ...], stroke: Stroke
) -> tuple[IntegrationField, ...]:
    if not fields:
        return (stroke.content.new_integration_field(stroke.number),)
    return (replace(fields[0], value=f"value {stroke.number}"), *fields[1:])


def _with_key(custom_fields: dict[str, Any] | None, stroke: Stroke) -> dict[str, Any]:
    return {**(custom_fields or {}), "review_cycle": stroke.number}


_COURSE_FIELDS: Final[dict[str, Callable[[Course, Stroke], Any]]] = {
    "remote_id": lambda course, stroke: f"{1000 + stroke.number}-moved",
    "origin_id": lambda course, stroke: f"origin-{stroke.number}",
    "remote_created_at": lambda course, stroke: stroke.time,
    "remote_data": lambda course, stroke: {"/courses": {"version": stroke.number}},
    "custom_fields": lambda course, stroke: _with_key(course.custom_fields, stroke),
    "integration_fields": lambda course, stroke: _with_field(course.integration_fields, stroke),
    "changed_at": lambda course, stroke: stroke.time,
}
_REVISION_FIELDS: Final[dict[str, Callable[[Revision, Stroke], Any]]] = {
    "remote_id": lambda revision, stroke: f"revision-moved-{stroke.number}",
    "title": lambda revision, stroke: stroke.content.new_title(stroke.number),
    "description": lambda revision, stroke: stroke.content.new_description(stroke.number),
    "remote_url": lambda revision, stroke: (
        f"{(revision.remote_url or '').partition('?')[0]}?edition={stroke.number}"
    ),
    "status": lambda revision, stroke: "INACTIVE" if revision.status == "ACTIVE" else "ACTIVE",
    "remote_created_at": lambda revision, stroke: stroke.time,
    "remote_data": lambda revision, stroke: {"/versions": {"version": stroke.number}},
    "custom_fields": lambda revision, stroke: _with_key(revision.custom_fields, stroke),
    "integration_fields": lambda revision, stroke: _with_field(revision.integration_fields, stroke),
    "changed_at": lambda revision, stroke: stroke.time,
}
EDITABLE_PATHS: Final = (*_COURSE_FIELDS, *(f"revisions.{name}" for name in _REVISION_FIELDS))
"""The paths of `edit`. The two `changed_at` change a time and no tracked field."""

_COURSE_PATHS: Final = tuple(name for name in _COURSE_FIELDS if name != "changed_at")
_REVISION_PATHS: Final = (
    *(name for name in _REVISION_FIELDS if name != "changed_at"),
    "skill_assignments",
)

USUAL_PATHS: Final = (
    "revisions.title", "revisions.title", "revisions.description", "revisions.description",
    "revisions.status", "revisions.remote_url", "revisions.custom_fields", "custom_fields",
    "integration_fields", "origin_id",
)  # fmt: skip
"""The paths from which an `edit` without a path chooses."""


def edit(course: Course, path: str, stroke: Stroke) -> Course:
    """`course` with the field at `path` (one of EDITABLE_PATHS) changed; of several revisions
    the newest is edited. Raises InapplicableError for a revision's field without a revision.
    """
    parent, _, name = path.rpartition(".")
    if not parent:
        value = _COURSE_FIELDS[name](course, stroke)
        return replace(course, **{"changed_at": stroke.time, name: value})
    newest = _newest(course)
    changed = replace(
        newest, **{"changed_at": stroke.time, name: _REVISION_FIELDS[name](newest, stroke)}
    )
    return _with_newest(course, changed)


def touched_paths(before: Course, after: Course) -> tuple[str, ...]:
    """The paths, as events name them, in which two states of a course differ.

    A revision's field is compared by the revision's id, and ignored if it is null or empty; so an
    added or removed revision changes `revisions` and each field that it fills. `changed_at` is not
    a path.
    """

    def by_revision(course: Course, name: str) -> dict[str, Any]:
        values = ((revision.id, getattr(revision, name)) for revision in course.revisions)
        return {key: value for key, value in values if value not in (None, ())}

    touched = [name for name in _COURSE_PATHS if getattr(before, name) != getattr(after, name)]
    if (before.provider_id, before.provider) != (after.provider_id, after.provider):
        touched.append("provider")
    if {revision.id for revision in before.revisions} != {
        revision.id for revision in after.revisions
    }:
        touched.append("revisions")
    touched += [
        f"revisions.{name}"
        for name in _REVISION_PATHS
        if by_revision(before, name) != by_revision(after, name)
    ]
    return tuple(touched)


def stamp(course: Course, path: str, stroke: Stroke) -> Course:
    """`course` with the times that change when the field at `path` appears or disappears
    everywhere: of a revision's field, on each revision that has it."""
    parent, _, name = path.rpartition(".")
    if name in {"provider", "skill_assignments"}:
        return course
    if not parent:
        return replace(course, changed_at=stroke.time)
    return replace(
        course,
        revisions=tuple(
            revision
            if getattr(revision, name) in (None, ())
            else replace(revision, changed_at=stroke.time)
            for revision in course.revisions
        ),
    )


def reassign_provider(course: Course, stroke: Stroke) -> Course:
    """`course` with another provider of the integration."""
    providers = stroke.content.providers
    start = stroke.number % len(providers)
    provider = next(
        candidate
        for candidate in (*providers[start:], *providers[:start])
        if candidate.id != course.provider_id
    )
    return replace(course, provider_id=provider.id, provider=provider)


def change_skills(course: Course, stroke: Stroke) -> Course:
    """`course` with one skill more on its newest revision, or one fewer, or another one."""
    newest = _newest(course)
    assigned = newest.skill_assignments
    skills = stroke.content.skills
    start = stroke.number % len(skills)
    taken = {assignment.skill.id for assignment in assigned}
    spare = next(
        SkillAssignment(skill)
        for skill in (*skills[start:], *skills[:start])
        if skill.id not in taken
    )
    move = stroke.number % 3 if assigned else 0
    if len(assigned) > 5:
        move = 1
    after = ((*assigned, spare), assigned[1:], (*assigned[1:], spare))[move]
    return _with_newest(course, replace(newest, skill_assignments=after))


def add_revision(course: Course, stroke: Stroke) -> Course:
    """`course` with one more revision, now the newest."""
    title = stroke.content.new_title(stroke.number)
    # Seeded revisions have numbers below 1000 per course, so they never collide with later ones.
    number = 1_000_000_000_000 + stroke.number
    revision = stroke.content.revision(course.id, title, number, stroke.at)
    return replace(course, revisions=(*course.revisions, revision))


def remove_revision(course: Course) -> Course:
    """`course` without its oldest revision. Raises InapplicableError when that is its only one."""
    if len(course.revisions) < 2:
        raise InapplicableError(f"{course.id} has no revision to spare")
    return replace(course, revisions=course.revisions[1:])


def _newest(course: Course) -> Revision:
    if not course.revisions:
        raise InapplicableError(f"{course.id} has no revision")
    return course.revisions[-1]


def _with_newest(course: Course, revision: Revision) -> Course:
    return replace(course, revisions=(*course.revisions[:-1], revision))
