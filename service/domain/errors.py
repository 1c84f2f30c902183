"""The errors of Coursewire; the first line of a docstring is the default message."""

from __future__ import annotations


class CoursewireError(Exception):
    """An error in Coursewire."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


# --- configuration and start --------------------------------------------------------------


class SettingsError(CoursewireError):
    """The settings cannot be used."""


class StartError(CoursewireError):
    """The service cannot start."""


class RedisRefusedError(StartError):
    """Redis does not grant the rights that the service needs."""


# --- errors of requests --------------------------------------------------------------------


class NotFoundError(CoursewireError):
    """Not found."""


class ConflictError(CoursewireError):
    """The request conflicts with the stored state."""


class LimitReachedError(ConflictError):
    """Limit reached."""


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
    """The same request is still running: try again shortly."""


class IdempotencyMismatchError(CoursewireError):
    """The Idempotency-Key was used with another path, query or body: send a new key."""


class PreconditionFailedError(CoursewireError):
    """The resource has changed since it was returned."""


class PreconditionRequiredError(CoursewireError):
    """The request must name the version that it changes."""


class StaleReviewError(PreconditionFailedError):
    """The held changes have changed since they were returned: get them again."""


class ForbiddenError(CoursewireError):
    """Insufficient scope."""


class NotAuthenticatedError(CoursewireError):
    """The request has no valid token."""


class TooManyFailuresError(CoursewireError):
    """Too many failed authentication attempts came from this address."""

    def __init__(self, retry_after: int) -> None:
        """`retry_after` is the number of seconds until another attempt is accepted."""
        super().__init__(f"too many wrong tokens came from this address; wait {retry_after} s")
        self.retry_after = retry_after


class TargetRefusedError(CoursewireError):
    """Requests to this address are not allowed."""


class DecryptionError(CoursewireError):
    """A stored secret cannot be decrypted: no encryption key fits, or it was moved or altered."""


# --- storage -------------------------------------------------------------------------------


class EventsExpiredError(CoursewireError):
    """Events after this position in the log are no longer retained."""

    def __init__(self, oldest: str) -> None:
        """`oldest` is the earliest position after which no event was trimmed."""
        super().__init__()
        self.oldest = oldest


class EventExpiredError(CoursewireError):
    """The event is no longer retained."""


class TooManyListenersError(CoursewireError):
    """Too many requests already wait for events."""


class StorageUnavailableError(CoursewireError):
    """Redis does not answer."""


class StoppingError(CoursewireError):
    """This process is stopping, and serves only until others have taken over."""


class LeaseLostError(CoursewireError):
    """The lease ended or passed to another worker; nothing was written."""


class EpochEndedError(CoursewireError):
    """The integration was deleted or started a new epoch; nothing was written."""


class StaleSubscriptionsError(CoursewireError):
    """Subscriptions changed since the snapshot was taken; nothing was written."""


class StaleRecordError(CoursewireError):
    """The record changed since it was read; nothing was written."""


class CoursesDifferError(CoursewireError):
    """Courses are not in the expected state; nothing was written.

    `known` has the unexpected ones by index, with the packed fingerprint of each, None if it is
    unknown.
    """

    def __init__(self, known: dict[int, bytes | None]) -> None:
        super().__init__()
        self.known = known


class FingerprintVersionError(CoursewireError):
    """The catalogue was written by a newer release of Coursewire.

    `tag` is the byte of its fingerprints' version.
    """

    def __init__(self, tag: bytes) -> None:
        super().__init__(
            "the catalogue was written by a newer release of Coursewire: this one cannot read "
            f"fingerprints of version {tag.decode(errors='replace')!r}"
        )
        self.tag = tag


# --- the upstream --------------------------------------------------------------------------


class UpstreamError(CoursewireError):
    """The upstream did not return a page.

    `code` is the upstream's `error.code` (an open set, may be null), `status` the HTTP status (None
    without a response), `retry_after` the seconds to wait, `log_url` the upstream's own page about
    this request. `elsewhere` means that the response may not come from the API, so the base URL may
    be wrong.
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
    """The upstream limits our rate: wait `retry_after` seconds and continue."""


class UpstreamBusyError(UpstreamError):
    """Too many requests at once: back off with jitter."""


class UpstreamUnavailableError(UpstreamError):
    """The upstream failed or could not be reached: retry with backoff."""


class UpstreamProxyError(UpstreamUnavailableError):
    """The forward proxy in front of the upstream cannot be used."""


class UpstreamInputError(UpstreamError):
    """The upstream calls the request invalid; in the middle of a poll, its cursor is invalid."""


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
    """The upstream's pages repeat, or never end."""
