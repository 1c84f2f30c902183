"""The content of sandbox courses: records generated from a seed, the same on every run. Each value
is drawn from a keyed digest of the seed, the integration and the record's own number, so a record
does not depend on the number of earlier ones.
"""

from __future__ import annotations

import functools
import hashlib
import random
from datetime import UTC, datetime
from typing import Any

import msgspec

_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_TO_BASE58 = bytes(_BASE58[byte % 58] for byte in range(256))
ID_LENGTH = 24
"""Characters in an identifier, as in the upstream's own examples."""

FIRST_CREATED_AT = 1_640_995_200_000
"""2022-01-01T00:00:00Z in ms: no seeded record is older."""
_SEEDED_SPAN_MINUTES = 2 * 365 * 24 * 60
_MINUTE = 60_000

PROVIDERS = 14
SKILLS = 60


class Provider(msgspec.Struct, frozen=True):
    """The provider of a course; shared by many courses."""

    id: str
    remote_id: str
    name: str | None


class Skill(msgspec.Struct, frozen=True):
    """A skill that a course teaches; shared by many revisions."""

    id: str
    remote_id: str | None
    name: str | None


class SkillAssignment(msgspec.Struct, frozen=True):
    """One entry of a revision's `skill_assignments`."""

    skill: Skill


class IntegrationField(msgspec.Struct, frozen=True):
    """A passthrough field; its value is any JSON, whatever its declared type is."""

    id: str
    key: str
    type: str
    value: Any
    label: str | None


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One edition of a course. Times are in the upstream's format."""

    id: str
    remote_id: str
    course_id: str | None
    title: str | None
    description: str | None
    remote_url: str | None
    status: str | None
    remote_created_at: str | None
    remote_deleted_at: str | None = None
    changed_at: str
    remote_data: dict[str, Any] | None = None
    custom_fields: dict[str, Any] | None = None
    integration_fields: tuple[IntegrationField, ...] = ()
    skill_assignments: tuple[SkillAssignment, ...] = ()


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the endpoint, with every documented field."""

    id: str
    remote_id: str
    provider_id: str | None
    origin_id: str | None
    remote_created_at: str | None
    remote_deleted_at: str | None = None
    changed_at: str
    remote_data: dict[str, Any] | None = None
    custom_fields: dict[str, Any] | None = None
    integration_fields: tuple[IntegrationField, ...] = ()
    provider: Provider | None
    revisions: tuple[Revision, ...]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Course).decode


def encode_course(course: Course) -> bytes:
    """The record as the endpoint serves it."""
    return _encode(course)


def decode_course(body: bytes) -> Course:
    """The record that `encode_course` wrote."""
    return _decode(body)


def encode_anonymised(course_id: str, remote_deleted_at: str | None) -> bytes:
    """A record 14 days after its deletion: its id, and perhaps the date."""
    nothing: dict[str, str | None] = dict.fromkeys(Course.__struct_fields__)
    return _encode(nothing | {"id": course_id, "remote_deleted_at": remote_deleted_at})


def format_time(milliseconds: int) -> str:
    """A time since 1970 in ms as `YYYY-MM-DDTHH:mm:ss.sssZ`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest:03d}Z"


def parse_time(text: str) -> int:
    """The ms since 1970 of a time that `format_time` wrote."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


_LEVELS = ("Introduction to", "Foundations of", "Applied", "Advanced", "Mastering", "Refresher:")
_TOPICS = (
    "Data Protection", "Workplace Safety", "Negotiation", "Financial Reporting",
    "Incident Response", "Inclusive Leadership", "Contract Law", "Statistical Reasoning",
    "Machine Learning", "Supply Chain Planning", "Customer Interviews", "Technical Writing",
    "Kubernetes Operations", "Secure Coding", "Ladungssicherung", "Gestión de proyectos",
    "Communication non violente", "Spreadsheet Modelling", "Change Management",
    "First Aid", "Anti-Bribery", "Product Discovery", "SQL", "日本語ビジネスメール",
    "Pharmacovigilance", "Energy Efficiency", "Public Speaking", "Lean Production",
    "Cloud Cost Control", "Accessibility", "Conflict Resolution", "Onboarding",
)  # fmt: skip
_AUDIENCES = (
    "", " for Managers", " for Engineers", " for New Joiners", " in Practice", " — Level 2",
    " for Field Staff", " for Auditors", ": a Workshop", " & Beyond", " 🎓", " for Everyone",
)  # fmt: skip
_SUBJECTS = (
    "Participants", "Learners", "Team leads", "You", "Small groups", "New colleagues",
    "Experienced practitioners", "Regional offices",
)  # fmt: skip
_VERBS = (
    "analyse", "practise", "discuss", "compare", "document", "rehearse", "review", "design",
    "question", "measure",
)  # fmt: skip
_OBJECTS = (
    "realistic cases from their own work", "the regulations in force since 2021",
    "three short assignments", "common mistakes and how to avoid them",
    'the "four eyes" principle', "a checklist they can take home",
    "recorded conversations", "the figures of the last quarter",
    "the difference between <b>policy</b> and practice", "tools such as R\\D and C:\\logs",
    "cafés, naïve assumptions and Größenordnungen", "an example with 10 % tolerance",
)  # fmt: skip
_ENDINGS = (
    "before the first live session.", "with feedback from a mentor.", "at their own pace.",
    "and present the outcome to the group.", "in about forty minutes.",
    "using material in English, Deutsch and 日本語.", "without prior knowledge.",
    "and finish with a short test.",
)  # fmt: skip
_SKILL_AREAS = ("analysis", "communication", "compliance", "engineering", "leadership", "safety")
_SENTENCES = 600
_LONGEST = 70


@functools.cache
def _prose() -> tuple[str, tuple[int, ...]]:
    """A text from which descriptions are cut, and the start of each sentence."""
    chance = random.Random(20220807)
    sentences = [
        f"{chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_OBJECTS)} "
        f"{chance.choice(_ENDINGS)}{' ' if chance.random() < 0.85 else chr(10) * 2}"
        for _ in range(_SENTENCES + _LONGEST)
    ]
    starts = [0]
    for sentence in sentences:
        starts.append(starts[-1] + len(sentence))
    return "".join(sentences), tuple(starts)


def _description(title: str, draw: bytes) -> str:
    """About 200 bytes to 6 kB: most are short, one in sixteen is long."""
    size_class = draw[0] % 16
    if size_class < 10:
        length = 2 + draw[1] % 4
    elif size_class < 15:
        length = 6 + draw[1] % 12
    else:
        length = 25 + draw[1] % (_LONGEST - 25)
    text, starts = _prose()
    first = int.from_bytes(draw[2:4]) % _SENTENCES
    return f"{title}. {text[starts[first] : starts[first + length]].rstrip()}"


def _title(draw: bytes) -> str:
    return (
        f"{_LEVELS[draw[0] % len(_LEVELS)]} {_TOPICS[draw[1] % len(_TOPICS)]}"
        f"{_AUDIENCES[draw[2] % len(_AUDIENCES)]}"
    )


class ContentSource:
    """Makes the records of one integration.

    The same `upstream_id` and `seed` always give the same records.
    """

    def __init__(self, upstream_id: str, seed: int) -> None:
        self._digest = hashlib.blake2b(f"{seed}\n{upstream_id}\n".encode(), digest_size=64)
        host = upstream_id.partition(":")[0]
        label = "".join(letter if letter.isalnum() else "-" for letter in host).strip("-")
        self._site = f"https://{label or 'lms'}.sandbox.example/courses"
        self.providers = tuple(self._provider(number) for number in range(PROVIDERS))
        self.skills = tuple(self._skill(number) for number in range(SKILLS))

    def _draw(self, kind: bytes, number: int) -> bytes:
        digest = self._digest.copy()
        digest.update(b"%b:%d" % (kind, number))
        return digest.digest()

    def _provider(self, number: int) -> Provider:
        draw = self._draw(b"provider", number)
        name = f"{_TOPICS[draw[30] % len(_TOPICS)]} Academy {number + 1}"
        return Provider(_identifier(draw), f"provider-{100 + number}", name)

    def _skill(self, number: int) -> Skill:
        draw = self._draw(b"skill", number)
        area = _SKILL_AREAS[draw[30] % len(_SKILL_AREAS)]
        remote_id = None if draw[31] % 12 == 0 else f"skill-{number + 1}"
        name = f"{_TOPICS[number % len(_TOPICS)]} ({area})"
        return Skill(_identifier(draw), remote_id, name)

    def course(self, number: int, created_at: int | None = None) -> Course:
        """The `number`-th course (≥ 0); without `created_at` (ms) its dates follow from the
        seed."""
        draw = self._draw(b"course", number)
        course_id = _identifier(draw)
        choices = draw[ID_LENGTH:]
        if created_at is None:
            minutes = int.from_bytes(choices[0:3]) % _SEEDED_SPAN_MINUTES
            created = FIRST_CREATED_AT + minutes * _MINUTE + choices[3]
            changed = created + int.from_bytes(choices[4:6]) * _MINUTE
        else:
            created = changed = created_at
        provider = None if choices[6] % 20 == 0 else self.providers[choices[7] % PROVIDERS]
        remote_id = str(1000 + number)
        if choices[8] % 5 == 0:
            remote_id = f"catalogue-{choices[9] % 7}/{remote_id}:{choices[10] % 3}"
        custom_fields: dict[str, Any] | None = None
        if choices[11] % 3:
            custom_fields = {
                "cost_centre": f"CC-{choices[12]:03d}",
                "mandatory": choices[13] % 2 == 0,
                "duration_hours": choices[14] / 4,
                "audience": {"regions": ["EU", "US"][: 1 + choices[15] % 2], "grade": None},
            }
        title = _title(choices[16:19])
        editions = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)[choices[19] % 10]
        return Course(
            id=course_id,
            remote_id=remote_id,
            provider_id=provider.id if provider else None,
            origin_id=f"course-{number}" if choices[20] % 4 == 0 else None,
            remote_created_at=format_time(created),
            changed_at=format_time(changed),
            custom_fields=custom_fields,
            integration_fields=self._integration_fields(choices[21:30]),
            provider=provider,
            revisions=tuple(
                self.revision(
                    course_id,
                    title,
                    number * 1000 + edition,
                    created + edition * _MINUTE if created_at is None else created,
                    active=edition == editions - 1,
                )
                for edition in range(editions)
            ),
        )

    def revision(
        self, course_id: str, title: str, number: int, created_at: int, *, active: bool = True
    ) -> Revision:
        """Revision `number` (unique within the integration) of a course; `created_at` in ms."""
        draw = self._draw(b"revision", number)
        choices = draw[ID_LENGTH:]
        revision_id = _identifier(draw)
        assigned = {choices[index] % SKILLS for index in range(1, 1 + choices[0] % 4)}
        status = "ACTIVE" if active else "INACTIVE"
        written = format_time(created_at)
        return Revision(
            id=revision_id,
            remote_id=f"revision-{number}",
            course_id=course_id,
            title=title,
            description=None if choices[5] % 40 == 0 else _description(title, choices[6:10]),
            remote_url=f"{self._site}/{course_id}/{revision_id}",
            status=None if choices[10] % 25 == 0 else status,
            remote_created_at=written,
            changed_at=written,
            custom_fields={"language": "en", "credits": choices[11]} if choices[12] % 4 else None,
            integration_fields=self._integration_fields(choices[13:22]),
            skill_assignments=tuple(
                SkillAssignment(self.skills[skill]) for skill in sorted(assigned)
            ),
        )

    def new_title(self, number: int) -> str:
        """A title that no other `number` has."""
        return f"{_title(self._draw(b'title', number))}, edition {number}"

    def new_description(self, number: int) -> str:
        """A description that no other `number` has."""
        draw = self._draw(b"description", number)
        return _description(f"{_title(draw)} (edition {number})", draw[3:])

    def new_integration_field(self, number: int) -> IntegrationField:
        """A passthrough field that no other `number` has."""
        draw = self._draw(b"field", number)
        return IntegrationField(_identifier(draw), f"field{number}", "CUSTOM", str(number), None)

    def _integration_fields(self, choices: bytes) -> tuple[IntegrationField, ...]:
        if choices[0] % 3:
            return ()
        owner = int.from_bytes(choices[1:7])
        values: tuple[Any, ...] = ("Frankfurt", 42, None, ["a", "b"], {"nested": True})
        fields = [
            ("location", "DEFAULT", values[choices[7] % len(values)], "Location"),
            ("customLevel", "CUSTOM", f"L{choices[8] % 9}", None),
        ]
        return tuple(
            IntegrationField(_identifier(self._draw(key.encode(), owner)), key, kind, value, label)
            for key, kind, value, label in fields[: 1 + choices[8] % 2]
        )


def _identifier(draw: bytes) -> str:
    return draw[:ID_LENGTH].translate(_TO_BASE58).decode("ascii")
