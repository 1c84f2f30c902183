"""The one error tree of the house; the first line of a docstring is its default message."""

from __future__ import annotations


class CoursewireError(Exception):
    """Something went wrong in Coursewire."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


# --- configuration and start --------------------------------------------------------------


class SettingsError(CoursewireError):
    """The settings are not usable."""


class StartError(CoursewireError):
    """The service cannot start."""


class RedisRefusedError(StartError):
    """Redis does not grant what the service needs."""


# --- what a caller asked for ---------------------------------------------------------------


class NotFoundError(CoursewireError):
    """There is no such object."""


class ConflictError(CoursewireError):
    """The request contradicts what is stored."""


class LimitReachedError(ConflictError):
    """There are as many as the operator allows."""


class IntegrationExistsError(ConflictError):
    """This upstream integration is already registered.

    Identity: the credential's base URL together with `upstream_id`.
    """

    def __init__(self, existing_id: str) -> None:
        super().__init__(f"this upstream integration is already registered as {existing_id}")
        self.existing_id = existing_id


class CredentialInUseError(ConflictError):
    """Integrations still use this credential: `count` of them, the first of which are `named` by id
    and name."""

    def __init__(self, credential_id: str, count: int, named: list[tuple[str, str]]) -> None:
        several = count > 1
        super().__init__(
            f"{count} integration{'s' if several else ''} still use{'' if several else 's'} "
            f"credential {credential_id}"
        )
        self.count = count
        self.named = named


class RequestRunningError(CoursewireError):
    """The same request is being answered at this moment: try again shortly."""


class IdempotencyMismatchError(CoursewireError):
    """The Idempotency-Key was used with another path or body: each request needs one of its own."""


class PreconditionFailedError(CoursewireError):
    """What the request builds on has changed since it was shown."""


class PreconditionRequiredError(CoursewireError):
    """The request must say what it builds on."""


class StaleReviewError(PreconditionFailedError):
    """What is held has changed since it was shown: look at it again."""


class ForbiddenError(CoursewireError):
    """This token may not do that."""


class NotAuthenticatedError(CoursewireError):
    """The request carries no valid token."""


class TooManyFailuresError(CoursewireError):
    """Too many wrong tokens came from this address."""

    def __init__(self, retry_after: int) -> None:
        """`retry_after` is the number of seconds after which another is looked at."""
        super().__init__(f"too many wrong tokens came from this address; wait {retry_after} s")
        self.retry_after = retry_after


class TargetRefusedError(CoursewireError):
    """Requests to this address are not allowed."""


class DecryptionError(CoursewireError):
    """A stored secret does not open: no encryption key fits, or it was moved or altered."""


# --- storage -------------------------------------------------------------------------------


class EventsExpiredError(CoursewireError):
    """Events behind this place in the log are no longer kept."""

    def __init__(self, oldest: str) -> None:
        """`oldest` is the earliest position behind which nothing was lost."""
        super().__init__()
        self.oldest = oldest


class EventExpiredError(CoursewireError):
    """The event is no longer kept."""


class TooManyListenersError(CoursewireError):
    """Too many requests wait for events already."""


class StorageUnavailableError(CoursewireError):
    """Redis does not answer."""


class StoppingError(CoursewireError):
    """This process was told to stop, and serves only until others have taken over."""


class LeaseLostError(CoursewireError):
    """The lease ended or passed to another worker; nothing was written."""


class EpochEndedError(CoursewireError):
    """The integration was deleted or started a new epoch; nothing was written."""


class StaleSubscriptionsError(CoursewireError):
    """Subscriptions changed since the snapshot was taken; nothing was written."""


class StaleRecordError(CoursewireError):
    """The record changed since it was read; nothing was written."""


class CoursesDifferError(CoursewireError):
    """Courses are not as they were expected to be; nothing was written.

    `known` says which of those that were named, by index, and what is known of each: its packed
    fingerprint, None if it is unknown.
    """

    def __init__(self, known: dict[int, bytes | None]) -> None:
        super().__init__()
        self.known = known


class FingerprintVersionError(CoursewireError):
    """The catalogue was written by a newer release of Coursewire.

    `tag` is the byte that names the version of its fingerprints.
    """

    def __init__(self, tag: bytes) -> None:
        super().__init__(
            "the catalogue was written by a newer release of Coursewire: this one cannot read "
            f"fingerprints of version {tag.decode(errors='replace')!r}"
        )
        self.tag = tag


# --- the upstream --------------------------------------------------------------------------


class UpstreamError(CoursewireError):
    """The upstream did not answer with a page.

    `code` is the upstream's `error.code` (an open set, may be null), `status` the HTTP
    status (None where no response came), `retry_after` seconds the upstream asked to wait,
    `log_url` the upstream's own page about this request; `elsewhere` says that the answer may be
    that of something else than the API, so that the base URL may be wrong.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        log_url: str | None = None,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(message)
        self.log_url = log_url
        self.elsewhere = elsewhere
        self.code = code
        self.status = status
        self.retry_after = retry_after


class UpstreamRateLimitedError(UpstreamError):
    """The upstream limits our rate: wait `retry_after` seconds and go on where it stopped."""


class UpstreamBusyError(UpstreamError):
    """Too many requests at once: back off with jitter."""


class UpstreamUnavailableError(UpstreamError):
    """The upstream failed or could not be reached: retry with backoff."""


class UpstreamProxyError(UpstreamUnavailableError):
    """The forward proxy in front of the upstream cannot be used."""


class UpstreamInputError(UpstreamError):
    """The upstream calls the request invalid; in the middle of a poll, its cursor is no good."""


class UpstreamAuthError(UpstreamError):
    """The upstream refuses the API key: the integration needs attention."""


class UpstreamTargetRefusedError(UpstreamError):
    """The address guard refuses the upstream's base URL; nothing was sent."""


class UpstreamNotFoundError(UpstreamError):
    """The upstream does not know this integration: the integration needs attention."""


class UpstreamNotReadyError(UpstreamError):
    """The integration's set-up or first sync is not complete at the upstream."""


class UpstreamModelUnavailableError(UpstreamError):
    """This integration has no courses at the upstream."""


class UpstreamPageError(UpstreamError):
    """The upstream's answer does not decode as a page."""


class UpstreamPagingError(UpstreamError):
    """The upstream's pages lead in circles, or never end."""
