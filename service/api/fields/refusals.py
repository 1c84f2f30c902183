"""What is wrong with the fields of a request, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from service.domain.errors import CoursewireError, TargetRefusedError

MAX_ERRORS = 100  # in one answer; nobody reads more


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field, and what to do about it."""

    example: ClassVar = {
        "field": "max_concurrency",
        "message": "0 is out of range",
        "remedy": "send a whole number from 1 to 100",
    }

    field: Annotated[str, Meta(description="its name, and the path inside it")]
    message: Annotated[str, Meta(description="what is wrong")]
    remedy: Annotated[str, Meta(description="what to do about it")]


class InvalidRequestError(CoursewireError):
    """The request has fields that cannot be accepted."""

    def __init__(self, errors: Collection[FieldError]) -> None:
        names = ", ".join(dict.fromkeys(error.field for error in errors))
        super().__init__(f"these fields cannot be accepted: {names}")
        self.errors = tuple(errors)


class Refusal(ValueError):  # noqa: N818 - it is raised by readers and never leaves the API
    """What a reader has against a value: of each part at fault, the path below the field, what
    is wrong and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.found = [FieldError("", message, remedy)]

    @classmethod
    def of(cls, found: list[FieldError]) -> Refusal:
        """A refusal for several reasons."""
        refusal = cls(found[0].message, found[0].remedy)
        refusal.found = found
        return refusal

    def below(self, path: str) -> list[FieldError]:
        """The reasons as seen from one level up."""
        return [FieldError(path + one.field, one.message, one.remedy) for one in self.found]


class Refusals:
    """The wrong fields of one request, of which `sent` are the names that it sends.

    A handler that takes `refusals` is called although fields are wrong, so that it can add what it
    finds by looking into the stores; what it finds wrong in `data` is UNSET there. It must
    `settle` before it uses `data`. Without it in its signature a handler is not called.
    """

    def __init__(self, sent: Iterable[str] = (), errors: Iterable[FieldError] = ()) -> None:
        self.sent = frozenset(sent)
        self._errors = list(errors)

    def refuse(self, field: str, message: str, remedy: str) -> None:
        """Notes that a field cannot be accepted."""
        self._errors.append(FieldError(field, message, remedy))

    def check_target(self, field: str, url: Any, check: Callable[[str], None]) -> None:
        """Notes what `check` has against a URL, if there is one."""
        if not url:
            return
        try:
            check(url)
        except TargetRefusedError as refusal:
            message, _, remedy = str(refusal).partition("; ")
            self.refuse(field, message, remedy or "give the URL of a server reached over HTTP")

    def fill_in(self, **known: str) -> None:
        """Replaces placeholders such as `{credential_id}` in the remedies."""
        for index, error in enumerate(self._errors):
            for name, value in known.items():
                remedy = error.remedy.replace(f"{{{name}}}", value)
                self._errors[index] = msgspec.structs.replace(error, remedy=remedy)

    def settle(self) -> None:
        """Raises InvalidRequestError if any field was refused."""
        if self._errors:
            raise InvalidRequestError(self._errors)
