"""How an integration serves its records: with fields switched off, and with null for empty lists.
Scope settings decide which fields of the connected system are served.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from service.sandbox.content import Course, Revision, encode_course

_EMPTY: Final[dict[str, tuple[()]]] = {"integration_fields": (), "skill_assignments": ()}
"""The fields that are an empty list when they are off; the others are null."""

_COURSE_FIELDS: Final = (
    "origin_id", "remote_created_at", "remote_data", "custom_fields", "integration_fields",
    "provider",
)  # fmt: skip
_REVISION_FIELDS: Final = (
    "title", "description", "remote_url", "status", "remote_created_at", "remote_data",
    "custom_fields", "integration_fields", "skill_assignments",
)  # fmt: skip
SWITCHABLE_PATHS: Final = (*_COURSE_FIELDS, *(f"revisions.{name}" for name in _REVISION_FIELDS))
"""The fields that can be switched off. With `provider` goes `provider_id`."""


class Presentation(msgspec.Struct, frozen=True):
    """The served parts of records. `off` are paths of SWITCHABLE_PATHS; with `null_lists` a list of
    `revisions`, `integration_fields` or `skill_assignments` without an entry is null.
    """

    off: frozenset[str] = frozenset()
    null_lists: bool = False

    @property
    def plain(self) -> bool:
        """Whether records are served unchanged."""
        return not self.off and not self.null_lists

    def switched(self, path: str, *, on: bool) -> Presentation:
        """The same presentation with the field at `path` on or off."""
        return replace(self, off=self.off - {path} if on else self.off | {path})

    def shown(self, course: Course) -> Course:
        """The course without the fields that are off."""
        if not self.off:
            return course
        changes: dict[str, Any] = {
            name: _EMPTY.get(name) for name in _COURSE_FIELDS if name in self.off
        }
        if "provider" in changes:
            changes["provider_id"] = None
        inner = {
            name: _EMPTY.get(name) for name in _REVISION_FIELDS if f"revisions.{name}" in self.off
        }
        if inner:
            changes["revisions"] = tuple(
                replace(revision, **inner) for revision in course.revisions
            )
        return replace(course, **changes)

    def encode(self, course: Course) -> bytes:
        """The record as it is served."""
        shown = self.shown(course)
        if not self.null_lists:
            return encode_course(shown)
        record = _with_null_lists(shown)
        record["revisions"] = [_with_null_lists(revision) for revision in shown.revisions] or None
        return msgspec.json.encode(record)


def _with_null_lists(record: Course | Revision) -> dict[str, Any]:
    return {
        name: None if value == () else value
        for name, value in msgspec.structs.asdict(record).items()
    }
