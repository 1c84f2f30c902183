"""Requested changes of an integration's courses, and their log records."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal, get_args

import msgspec

from service.sandbox.content import format_time, parse_time
from service.sandbox.edits import EDITABLE_PATHS
from service.sandbox.presentation import SWITCHABLE_PATHS

RENAME_PROVIDER: Final = "provider.name"

SwitchOperation = Literal["field_off", "field_on"]
CourseOperation = Literal[
    "create", "edit", "delete", "vanish", "restore", "anonymise", "provider", "skill",
    "revision_add", "revision_remove",
]  # fmt: skip
Operation = CourseOperation | SwitchOperation


class State(enum.StrEnum):
    """The state of a course."""

    LIVE = "live"
    DELETED = "deleted"
    """A tombstone: still served with `include_deleted`, `remote_deleted_at` set."""
    ANONYMISED = "anonymised"
    """A tombstone that kept only its id, and perhaps the date."""
    VANISHED = "vanished"
    """Removed without a tombstone: no query finds it."""


ALLOWED_FROM: Final[dict[Operation, tuple[State, ...]]] = {
    "edit": (State.LIVE,),
    "delete": (State.LIVE,),
    "vanish": (State.LIVE, State.DELETED, State.ANONYMISED),
    "restore": (State.DELETED, State.ANONYMISED, State.VANISHED),
    "anonymise": (State.LIVE, State.DELETED),
    "provider": (State.LIVE,),
    "skill": (State.LIVE,),
    "revision_add": (State.LIVE,),
    "revision_remove": (State.LIVE,),
}
"""The states that an operation accepts; `create` needs no course."""

UNSEEN_BY_UPDATED_AFTER: Final[frozenset[Operation]] = frozenset({"provider", "skill"})
"""Operations that change no time of the course."""

_SWITCHES: Final = get_args(SwitchOperation)


class ChangeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operation on the given course, on `count` random courses that it fits, or on `all`
    courses that it fits, even if there are none.

    `path` names the field of an `edit` (one of EDITABLE_PATHS; drawn when absent). For `provider`
    it may be `provider.name`, which renames the provider of the course for every course that shares
    it; otherwise the course moves to another provider. `field_off` and `field_on` concern the whole
    integration: the field at `path` (one of SWITCHABLE_PATHS) is served as null, or as an empty
    list, in every record until it is switched on again. `keep_deleted_at` determines whether
    `anonymise` keeps the tombstone's date. `updated_at` replaces the time of the change in the
    record and for `updated_after`: an older time for a record that becomes visible late, the same
    time for records that it must not distinguish.
    """

    op: Operation
    course_id: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    all: bool = False
    path: str | None = None
    updated_at: str | None = None
    keep_deleted_at: bool = True

    def __post_init__(self) -> None:
        """Refuse changes that no course could satisfy."""
        if self.course_id is not None and (self.op == "create" or self.count != 1):
            raise ValueError("course_id: only for a single course, and not for create")
        if self.all and (self.course_id is not None or self.count != 1):
            raise ValueError("all: not together with course_id or count")
        if self.all and (self.op == "create" or self.path == RENAME_PROVIDER):
            raise ValueError("all: not for create or a provider's name")
        self._check_path()
        if self.updated_at is not None:
            if self.op in UNSEEN_BY_UPDATED_AFTER:
                raise ValueError(f"updated_at: {self.op} moves no time")
            _check_time(self.updated_at)

    def _check_path(self) -> None:
        fitting: tuple[str, ...] = ()
        if self.op == "edit":
            fitting = EDITABLE_PATHS
        elif self.op == "provider":
            fitting = ("provider", RENAME_PROVIDER)
        elif self.op in _SWITCHES:
            fitting = SWITCHABLE_PATHS
            if self.course_id is not None or self.count != 1 or self.all:
                raise ValueError(f"{self.op} is for the whole integration: it takes only path")
            if self.path is None:
                raise ValueError(f"path: {self.op} needs one of {', '.join(fitting)}")
        if self.path is not None and self.path not in fitting:
            raise ValueError(f"path: {self.op} takes {', '.join(fitting) or 'none'}")


def _check_time(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        moment = -1
    if moment < 0 or format_time(moment) != text:
        raise ValueError("updated_at: must be like YYYY-MM-DDTHH:mm:ss.sssZ, from 1970 on")


class Change(msgspec.Struct, frozen=True):
    """One change of one course: its number, from 1, its time, and the changed fields. `at` is the
    true time, which may differ from the record's. `paths` are those in which the served record
    differs; empty if the whole record was created, removed or emptied.
    """

    n: int
    at: str
    op: Operation
    course_id: str
    paths: tuple[str, ...] = ()


class ChangesRefusedError(Exception):
    """A change could not be made; earlier ones were made, and stay."""

    def __init__(self, reason: str, applied: list[Change]) -> None:
        super().__init__(reason)
        self.applied = applied
