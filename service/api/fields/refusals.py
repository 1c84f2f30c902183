"""Errors in the fields of a request, with their remedies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from service.domain.errors import CoursewireError, TargetRefusedError

MAX_ERRORS = 100  # then no further field is read; one list or object can add more


class FieldError(msgspec.Struct, frozen=True):
    """The error of one field, and its remedy."""

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
    """The errors of a value: for each wrong part its path below the field, the error and the
    remedy."""

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
        """The reasons with paths that begin one level higher."""
        return [FieldError(path + one.field, one.message, one.remedy) for one in self.found]


class Refusals:
    """The wrong fields of one request; `sent` are the names of the fields in it.

    A handler that takes `refusals` is called although fields are wrong, so that it can add errors
    that only the stores reveal. Wrong fields of `data` are UNSET. It must `settle` before it uses
    `data`. A handler without `refusals` is not called.
    """

    def __init__(self, sent: Iterable[str] = (), errors: Iterable[FieldError] = ()) -> None:
        self.sent = frozenset(sent)
        self._errors = list(errors)

    def refuse(self, field: str, message: str, remedy: str) -> None:
        """Records that a field cannot be accepted."""
        self._errors.append(FieldError(field, message, remedy))

    def check_target(self, field: str, url: Any, check: Callable[[str], None]) -> None:
        """Records the error that `check` raises for a URL."""
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
