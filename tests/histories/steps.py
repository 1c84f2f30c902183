"""What may happen in a history: steps, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

from service.sandbox import faults
from service.sandbox.edits import EDITABLE_PATHS
from service.sandbox.presentation import SWITCHABLE_PATHS

MOST_COURSES = 60


@dataclass(frozen=True)
class Change:
    """One operation on `many` courses, from the `pick`-th of those it fits. `late` is how many
    minutes before now the rows are dated."""

    op: str
    pick: int = 0
    many: int = 1
    path: str | None = None
    late: int = 0
    keep_deleted_at: bool = True


@dataclass(frozen=True)
class Fault:
    """A fault of the sandbox; `hides` picks courses for those that hide or spoil some."""

    kind: str
    on: str
    times: int | None = 1
    hides: tuple[int, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heal:
    """All faults end."""


@dataclass(frozen=True)
class Pass:
    """Time passes."""

    minutes: int


@dataclass(frozen=True)
class Rename:
    """Somebody edits the integration's name and labels."""

    number: int


@dataclass(frozen=True)
class Subscribe:
    """Somebody subscribes, so that the snapshot of subscriptions is out of date."""


@dataclass(frozen=True)
class Crash:
    """The worker dies."""


@dataclass(frozen=True)
class Drain:
    """The worker is told to end."""


@dataclass(frozen=True)
class Usurp:
    """The worker stalls, its lease runs out, and another takes a turn before it goes on."""


@dataclass(frozen=True)
class Turn:
    """A worker's turn, at a walk that was asked for or (None) whichever is called for. `amid`
    are things that happen at its n-th point: before or after a call to Redis or upstream."""

    kind: Literal["delta", "sweep"] | None
    amid: tuple[tuple[int, Any], ...] = ()


@dataclass(frozen=True)
class Decide:
    """What is held is applied: the decision is taken, and carried out by the next turn."""


@dataclass(frozen=True)
class History:
    """How it begins, and what happens then."""

    courses: int
    seed: int
    skew_minutes: int
    emit: bool
    guards: dict[str, Any]
    ignored: tuple[str, ...]
    track_remote_data: bool
    steps: tuple[Any, ...]


_pick = st.integers(0, MOST_COURSES)
# Mostly few, sometimes many.
_many = st.one_of(st.just(1), st.just(1), st.integers(1, 6), st.integers(1, MOST_COURSES))
_late = st.one_of(st.just(0), st.integers(0, 9))

_single = st.one_of(
    st.builds(
        Change,
        op=st.just("edit"),
        pick=_pick,
        many=_many,
        path=st.sampled_from(EDITABLE_PATHS),
        late=_late,
    ),
    st.builds(
        Change,
        op=st.sampled_from(["edit"]),
        pick=_pick,
        many=_many,
        path=st.sampled_from(["revisions.title", "custom_fields"]),
    ),
    st.builds(
        Change,
        op=st.sampled_from(["delete", "vanish", "restore", "revision_add", "revision_remove"]),
        pick=_pick,
        many=_many,
        late=_late,
    ),
    st.builds(Change, op=st.sampled_from(["create", "restore"]), pick=_pick, many=_many),
    st.builds(
        Change,
        op=st.just("anonymise"),
        pick=_pick,
        many=_many,
        keep_deleted_at=st.booleans(),
    ),
    st.builds(Change, op=st.sampled_from(["provider", "skill"]), pick=_pick, many=_many),
    st.builds(Change, op=st.just("provider"), pick=_pick, path=st.just("provider.name")),
    st.builds(
        Change,
        op=st.sampled_from(["field_off", "field_on", "field_on"]),
        path=st.sampled_from(["custom_fields", "provider", "revisions.title"]),
    ),
    st.builds(
        Change,
        op=st.sampled_from(["field_off", "field_on"]),
        path=st.sampled_from(SWITCHABLE_PATHS),
    ),
)

_times = st.one_of(st.integers(1, 3), st.none())
_pages = st.sampled_from(["walk", "first", "later"])
_anywhere = st.sampled_from(["any", "walk", "first", "later", "ids"])
_codes = st.sampled_from(
    [
        "PLATFORM.UNKNOWN_ERROR",
        "PLATFORM.INPUT_INVALID",
        "PLATFORM.RATE_LIMIT_EXCEEDED",
        "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED",
        "PLATFORM.AUTHENTICATION_INVALID",
        "INTEGRATION.SETUP_SYNC_PENDING",
        "INTEGRATION.MODEL_NOT_AVAILABLE",
    ]
)
# Of a path whose wrong type the record does not survive: another would be a change like any.
_breaking = st.sampled_from(
    ["id", "remote_id", "remote_deleted_at", "provider", "revisions", "integration_fields"]
)


def _fault(kind: str, on: st.SearchStrategy[str], **fields: st.SearchStrategy[Any]):
    return st.builds(
        Fault, kind=st.just(kind), on=on, times=_times, fields=st.fixed_dictionaries(fields)
    )


# Left out is what no client could tell from the truth: an answer to ids without a live course
# though the controls come back, hence a partial vanish or a shift of such an answer.
_honest = st.one_of(
    _fault("error", _anywhere, code=_codes),
    _fault("html", _anywhere),
    _fault("drop", _anywhere),
    _fault("truncate", _anywhere, after=st.sampled_from([0.0, 0.5, 0.9])),
    _fault("repeat_cursor", _anywhere),
    _fault("endless", _pages),
)
_distorting = st.one_of(
    _fault("empty", _anywhere),
    _fault("end_early", _anywhere),
    _fault("vanish", _anywhere, share=st.just(1.0)),
    st.builds(
        Fault,
        kind=st.just("vanish"),
        on=_pages,
        times=_times,
        hides=st.lists(_pick, min_size=1, max_size=5).map(tuple),
    ),
    _fault("shift", _pages, by=st.sampled_from([-9, -2, -1, 1, 2, 9])),
    _fault("wrong_types", _anywhere, where=st.just("page")),
    _fault("wrong_types", _anywhere, share=st.sampled_from([0.2, 1.0]), path=_breaking),
)

_pass = st.builds(
    Pass, minutes=st.one_of(st.integers(1, 12), st.integers(1, 120), st.just(14 * 24 * 60))
)
_editing = st.one_of(st.builds(Rename, number=st.integers(1, 9)), st.builds(Subscribe))
_amid = st.one_of(
    st.builds(Crash),
    st.builds(Crash),
    _single,
    _single,
    _pass,
    _editing,
    st.builds(Drain),
    st.builds(Usurp),
    st.builds(Heal),
)
_points = st.one_of(st.integers(0, 20), st.integers(0, 120))
_turn = st.builds(
    Turn,
    kind=st.sampled_from(["delta", "sweep", "delta", None]),
    amid=st.one_of(
        st.just(()),
        st.lists(st.tuples(_points, _amid), min_size=1, max_size=4).map(tuple),
    ),
)
_guards = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"changed_count": st.just(5)}),
    st.fixed_dictionaries(
        {
            "changed_count": st.integers(0, 20),
            "changed_share": st.sampled_from([0.0, 0.2, 0.5, 1.0]),
            "deleted_count": st.integers(0, 10),
            "deleted_share": st.sampled_from([0.0, 0.15, 1.0]),
            "deleted_share_max": st.sampled_from([0.0, 0.5, 1.0]),
        }
    ),
)
_IGNORABLE = ["provider", "custom_fields", "revisions.title", "revisions.skill_assignments"]


def _histories(faults: st.SearchStrategy[Any]) -> st.SearchStrategy[History]:
    step = st.one_of(_turn, _turn, _turn, _single, _single, _single, faults, _pass, _editing)
    step = st.one_of(step, step, step, st.builds(Heal), st.builds(Decide))
    return st.builds(
        History,
        courses=st.one_of(st.integers(1, 12), st.integers(1, MOST_COURSES)),
        seed=st.integers(0, 3),
        skew_minutes=st.sampled_from([0, 0, -45, 45]),
        emit=st.booleans(),
        guards=_guards,
        ignored=st.one_of(st.just(()), st.lists(st.sampled_from(_IGNORABLE)).map(tuple)),
        track_remote_data=st.booleans(),
        steps=st.lists(step, min_size=1, max_size=25).map(tuple),
    )


# Some upstreams never distort an answer: of these deltas can be held to more.
histories = st.one_of(_histories(_honest), _histories(st.one_of(_honest, _distorting)))


def sandbox_fault(fault: Fault, course_ids: list[str]) -> faults.AnyFault:
    """The fault as the sandbox wants it."""
    import msgspec

    fields = {"kind": fault.kind, "on": fault.on, "times": fault.times, **fault.fields}
    if fault.hides:
        fields["course_ids"] = sorted({course_ids[at % len(course_ids)] for at in fault.hides})
    return msgspec.convert(fields, faults.AnyFault)
