"""What may happen in a history: steps, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st

from service.sandbox import faults
from service.sandbox.edits import EDITABLE_PATHS
from service.sandbox.presentation import SWITCHABLE_PATHS

MOST_COURSES = 60
# Few, so that changes meet: the same path again, while it is held, or switched off.
_USUAL_PATHS = ("revisions.title", "custom_fields")
_USUAL_FIELDS = ("custom_fields", "revisions.title", "provider")


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
    """A worker's turn, at a poll that was asked for or (None) whichever is called for. `amid`
    are things that happen at its n-th point: before or after a call to Redis or upstream."""

    kind: Literal["delta", "full"] | None
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


@st.composite
def _weighted(draw: Any, choices: dict[str, tuple[int, st.SearchStrategy[Any]]]) -> Any:
    """One of several, as often as its weight says, which `one_of` does not let one choose."""
    names = [name for name, (weight, _) in choices.items() for _ in range(weight)]
    return draw(choices[draw(st.sampled_from(names))][1])


_pick = st.integers(0, MOST_COURSES)
_many = _weighted(
    {
        "one": (5, st.just(1)),
        "some": (4, st.integers(2, 6)),
        "many": (1, st.integers(7, MOST_COURSES)),
    }
)
_late = _weighted({"now": (3, st.just(0)), "late": (1, st.integers(1, 9))})


def _change(*ops: str, **fields: Any) -> st.SearchStrategy[Change]:
    drawn = {"pick": _pick, "many": _many, "late": st.just(0), **fields}
    return st.builds(Change, op=st.sampled_from(ops), **drawn)


_change_of_any_kind = _weighted(
    {
        "usual edit": (5, _change("edit", path=st.sampled_from(_USUAL_PATHS), late=_late)),
        "edit": (3, _change("edit", path=st.sampled_from(EDITABLE_PATHS), late=_late)),
        "revision": (2, _change("revision_add", "revision_remove", late=_late)),
        "unseen": (2, _change("provider", "skill")),
        "rename": (1, _change("provider", path=st.just("provider.name"))),
        "create": (2, _change("create", late=_late)),
        "delete": (3, _change("delete", late=_late)),
        "vanish": (3, _change("vanish")),
        "restore": (4, _change("restore", late=_late)),
        "anonymise": (1, _change("anonymise", keep_deleted_at=st.booleans())),
        "usual switch": (2, _change("field_off", "field_on", path=st.sampled_from(_USUAL_FIELDS))),
        "switch": (1, _change("field_off", "field_on", path=st.sampled_from(SWITCHABLE_PATHS))),
    }
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
_honest = _weighted(
    {
        "error": (3, _fault("error", _anywhere, code=_codes)),
        "html": (1, _fault("html", _anywhere)),
        "drop": (1, _fault("drop", _anywhere)),
        "truncate": (1, _fault("truncate", _anywhere, after=st.sampled_from([0.0, 0.5, 0.9]))),
        "repeat_cursor": (1, _fault("repeat_cursor", _anywhere)),
        "endless": (1, _fault("endless", _pages)),
    }
)
_hiding = st.builds(
    Fault,
    kind=st.just("vanish"),
    on=_pages,
    times=_times,
    hides=st.lists(_pick, min_size=1, max_size=5).map(tuple),
)
_distorting = _weighted(
    {
        "empty": (1, _fault("empty", _anywhere)),
        "end_early": (1, _fault("end_early", _anywhere)),
        "vanish": (1, _fault("vanish", _anywhere, share=st.just(1.0))),
        "hiding": (3, _hiding),
        "shift": (2, _fault("shift", _pages, by=st.sampled_from([-9, -2, -1, 1, 2, 9]))),
        "bad page": (1, _fault("wrong_types", _anywhere, where=st.just("page"))),
        "bad records": (
            2,
            _fault("wrong_types", _anywhere, share=st.sampled_from([0.2, 1.0]), path=_breaking),
        ),
    }
)

_minutes = _weighted(
    {
        "within the overlap": (4, st.integers(1, 12)),
        "resumable or not": (4, st.integers(13, 60)),
        "hours": (1, st.integers(61, 600)),
        "beyond the horizon": (1, st.just(14 * 24 * 60)),
    }
)
_pass = st.builds(Pass, minutes=_minutes)
_editing = st.one_of(st.builds(Rename, number=st.integers(1, 9)), st.just(Subscribe()))
_amid = _weighted(
    {
        "crash": (6, st.just(Crash())),
        "change": (6, _change_of_any_kind),
        "pass": (3, _pass),
        "drain": (2, st.just(Drain())),
        "usurp": (1, st.just(Usurp())),
        "edit": (1, _editing),
        "heal": (1, st.just(Heal())),
    }
)
_point = _weighted({"early": (3, st.integers(0, 24)), "late": (2, st.integers(25, 120))})
_turn = st.builds(
    Turn,
    kind=st.sampled_from(["delta", "delta", "full", None]),
    amid=st.lists(st.tuples(_point, _amid), max_size=4).map(tuple),
)


@st.composite
def _round(draw: Any, faults: st.SearchStrategy[Any]) -> tuple[Any, ...]:
    """Something happens, and then there is a turn."""
    steps: list[Any] = draw(st.lists(_change_of_any_kind, max_size=3))
    if draw(st.integers(1, 3)) == 3:
        # Two at once: what one hides, the other keeps from being asked for.
        steps += draw(st.lists(faults, min_size=1, max_size=2))
    for chance, step in ((2, _pass), (8, _editing), (6, st.just(Decide()))):
        if draw(st.integers(1, chance)) == chance:
            steps.append(draw(step))
    steps.append(draw(_turn))
    if draw(st.integers(1, 3)) == 3:
        steps.append(Heal())
    return tuple(steps)


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
    rounds = st.lists(_round(faults), min_size=4, max_size=12)
    return st.builds(
        History,
        courses=_weighted(
            {"few": (1, st.integers(1, 12)), "many": (2, st.integers(8, MOST_COURSES))}
        ),
        seed=st.integers(0, 3),
        skew_minutes=st.sampled_from([0, 0, -45, 45]),
        emit=st.booleans(),
        guards=_guards,
        ignored=st.one_of(st.just(()), st.lists(st.sampled_from(_IGNORABLE)).map(tuple)),
        track_remote_data=st.booleans(),
        steps=rounds.map(lambda drawn: tuple(step for steps in drawn for step in steps)),
    )


# Some upstreams never distort an answer: of these deltas can be held to more.
histories = st.one_of(
    _histories(_honest),
    _histories(_weighted({"honest": (1, _honest), "distorting": (2, _distorting)})),
)


def sandbox_fault(fault: Fault, course_ids: list[str]) -> faults.AnyFault:
    """The fault as the sandbox wants it."""
    fields = {"kind": fault.kind, "on": fault.on, "times": fault.times, **fault.fields}
    if fault.hides:
        fields["course_ids"] = sorted({course_ids[at % len(course_ids)] for at in fault.hides})
    return msgspec.convert(fields, faults.AnyFault)
