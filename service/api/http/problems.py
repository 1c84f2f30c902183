"""Errors as problem documents (RFC 9457): the closed catalogue of their types."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, cast

from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, ExceptionHandlersMap, Receive, Scope, Send
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.refusals import FieldError, InvalidRequestError
from service.api.fields.views import View
from service.api.http import cursors
from service.api.http.access_log import answer_of
from service.api.http.middleware import Layer
from service.api.http.problem_types import (
    CONFLICT,
    CREDENTIAL_IN_USE,
    CURSOR_EXPIRED,
    EVENT_EXPIRED,
    FORBIDDEN,
    IDEMPOTENCY_MISMATCH,
    INTEGRATION_EXISTS,
    INTERNAL,
    LIMIT_REACHED,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
    REQUEST_RUNNING,
    SECRET_UNREADABLE,
    STOPPING,
    STORAGE_UNAVAILABLE,
    TOO_LARGE,
    TOO_MANY_FAILURES,
    TOO_MANY_LISTENERS,
    TYPE_PREFIX,
    UNAUTHORIZED,
    UNSUPPORTED_MEDIA_TYPE,
    VALIDATION,
    ProblemType,
)
from service.domain.errors import (
    ConflictError,
    CoursewireError,
    CredentialInUseError,
    DecryptionError,
    EventExpiredError,
    EventsExpiredError,
    ForbiddenError,
    IdempotencyMismatchError,
    IntegrationExistsError,
    LimitReachedError,
    NotAuthenticatedError,
    NotFoundError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RedisRefusedError,
    RequestRunningError,
    StoppingError,
    StorageUnavailableError,
    TooManyFailuresError,
    TooManyListenersError,
)
from service.logs import get_logger
from service.settings import PREFIX, Settings
from service.storage.redis.client import NotServingError

MEDIA_TYPE = "application/problem+json"
PROBLEMS = "problems"  # `opt` of a route: problems that do not follow from its signature
MAX_PATH_LENGTH = 200  # characters of an unknown path that an error repeats

_CHALLENGE = {"www-authenticate": 'Bearer realm="coursewire"'}

_log = get_logger("api")

AnyRequest = Request[Any, Any, State]


_BY_ERROR: dict[type[CoursewireError], ProblemType] = {
    NotAuthenticatedError: UNAUTHORIZED,
    ForbiddenError: FORBIDDEN,
    TooManyFailuresError: TOO_MANY_FAILURES,
    NotFoundError: NOT_FOUND,
    IntegrationExistsError: INTEGRATION_EXISTS,
    CredentialInUseError: CREDENTIAL_IN_USE,
    LimitReachedError: LIMIT_REACHED,
    ConflictError: CONFLICT,
    RequestRunningError: REQUEST_RUNNING,
    IdempotencyMismatchError: IDEMPOTENCY_MISMATCH,
    PreconditionFailedError: PRECONDITION_FAILED,
    PreconditionRequiredError: PRECONDITION_REQUIRED,
    InvalidRequestError: VALIDATION,
    EventExpiredError: EVENT_EXPIRED,
    TooManyListenersError: TOO_MANY_LISTENERS,
    DecryptionError: SECRET_UNREADABLE,
    StoppingError: STOPPING,
    StorageUnavailableError: STORAGE_UNAVAILABLE,
    RedisRefusedError: STORAGE_UNAVAILABLE,
}
_BY_STATUS = {
    problem.status: problem
    for problem in (
        MALFORMED,
        UNAUTHORIZED,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
    )
}


class UsingIntegration(View, frozen=True, kw_only=True):
    """An integration that uses a credential."""

    example: ClassVar = {"id": samples.INTEGRATION, "name": "Workday of Acme"}
    id: Annotated[str, means("its id")]
    name: Annotated[str, means("its name")]


class ProblemDocument(View, frozen=True, kw_only=True, omit_defaults=True):
    """The members of every problem."""

    example: ClassVar = VALIDATION.example()

    type: Annotated[str, means("a URI that identifies the type of problem")]
    title: Annotated[str, means("the title of the type of problem")]
    status: Annotated[int, means("the HTTP status")]
    detail: Annotated[str, means("the cause of this occurrence and the remedy")]
    errors: Annotated[tuple[FieldError, ...], means("the fields of a `validation` problem")] = ()
    existing_id: Annotated[
        str | None, means("the integration that an `integration-exists` problem refers to")
    ] = None
    integration_count: Annotated[
        int | None, means("how many integrations use the credential of `credential-in-use`")
    ] = None
    integrations: Annotated[
        tuple[UsingIntegration, ...], means("the first 20 of these integrations")
    ] = ()
    oldest_cursor: Annotated[
        str | None,
        means(
            "of a `cursor-expired` problem: the cursor to continue from; every event after "
            "it is retained"
        ),
    ] = None


def document(problem: ProblemType, detail: str, **more: Any) -> ProblemDocument:
    """A problem of this type, with the members in `more`."""
    return ProblemDocument(
        type=TYPE_PREFIX + problem.name,
        title=problem.title,
        status=problem.status,
        detail=detail,
        **more,
    )


def expired(error: EventsExpiredError) -> ProblemDocument:
    """The problem for a reader whose position in the event log was trimmed."""
    return document(
        CURSOR_EXPIRED,
        (
            "the retention trimmed events that you have not read; continue from "
            "oldest_cursor and look up the events that you may have missed"
        ),
        oldest_cursor=cursors.write_log(error.oldest),
    )


def answer(
    problem: ProblemType,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Response[ProblemDocument]:
    """A problem as a response, with the members in `more`."""
    return _response(document(problem, detail, **more), headers)


def _response(
    content: ProblemDocument, headers: dict[str, str] | None = None
) -> Response[ProblemDocument]:
    return Response(content, status_code=content.status, media_type=MEDIA_TYPE, headers=headers)


def _of_http(request: AnyRequest, error: HTTPException) -> Response[ProblemDocument]:
    problem = _BY_STATUS.get(HTTPStatus(error.status_code))
    if problem is None:
        if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _of_defect(request, error)
        problem = MALFORMED
    detail = error.detail or problem.title
    if problem is NOT_FOUND:  # this service raises its own errors for missing resources
        path = _public(request.url.path, request)[:MAX_PATH_LENGTH]
        detail = f"no path {path}; see {_public('/schema', request)}"
    return answer(problem, detail, headers=_with_head(error.headers))


def _public(path: str, request: AnyRequest) -> str:
    """A path as clients see it."""
    settings: Settings = request.app.state.settings
    return settings.root_path + path


def _with_head(headers: dict[str, str] | None) -> dict[str, str] | None:
    """The headers, with HEAD among the allowed methods if GET is."""
    if headers is None or "allow" not in headers:
        return headers
    allowed = headers["allow"].split(", ")
    if "GET" in allowed:
        allowed.insert(allowed.index("GET") + 1, "HEAD")
    return {**headers, "allow": ", ".join(allowed)}


def _of_ours(request: AnyRequest, error: CoursewireError) -> Response[ProblemDocument]:
    if isinstance(error, EventsExpiredError):
        return _response(expired(error))
    for kind in type(error).__mro__:
        if (problem := _BY_ERROR.get(kind)) is not None:
            break
    else:
        return _of_defect(request, error)
    if problem is SECRET_UNREADABLE:
        _log.error("stored secret cannot be decrypted", path=request.url.path)
    return answer(
        problem,
        _detail(error),
        headers=_headers(error),
        **_members(error),
    )


def _members(error: CoursewireError) -> dict[str, Any]:
    """The members of a problem beside those of every problem."""
    match error:
        case InvalidRequestError():
            return {"errors": error.errors}
        case IntegrationExistsError():
            return {"existing_id": error.existing_id}
        case CredentialInUseError():
            named = tuple(UsingIntegration(id=id_, name=name) for id_, name in error.named)
            return {"integration_count": error.count, "integrations": named}
    return {}


def _headers(error: CoursewireError) -> dict[str, str] | None:
    match error:
        case NotAuthenticatedError():
            return _CHALLENGE
        case TooManyFailuresError():
            return {"retry-after": str(error.retry_after)}
        case (
            TooManyListenersError()
            | StoppingError()
            | StorageUnavailableError()
            | RedisRefusedError()
        ):
            return {"retry-after": "5"}
        case RequestRunningError():
            return {"retry-after": "1"}
    return None


def _detail(error: CoursewireError) -> str:
    if isinstance(error, IntegrationExistsError):
        return f"{error}; change that one: PATCH /v1/integrations/{error.existing_id}"
    if isinstance(error, CredentialInUseError):
        return f"{error}; delete them first, or PATCH their credential_id"
    return str(error)


def _of_storage(request: AnyRequest, error: Exception) -> Response[ProblemDocument]:
    if request.url.path != "/readyz":  # probes ask often, and the response states it
        _log.error("storage unavailable", path=request.url.path, reason=type(error).__name__)
    detail = "Redis does not answer; try again shortly"
    if isinstance(error, OutOfMemoryError):
        detail = "Redis is at its memory limit; give it more, or shorten the retention"
    elif isinstance(error, NotServingError):
        detail = f"Redis does not accept writes at present ({error}); try again shortly"
    elif isinstance(error, AuthenticationError):
        detail = f"Redis refuses the user or the password in {PREFIX}REDIS_URL"
    elif isinstance(error, NoPermissionError):
        detail = (
            "Redis does not grant the rights that this request needs; /readyz and "
            "`coursewire doctor` list the missing ones"
        )
    return answer(STORAGE_UNAVAILABLE, detail, headers={"retry-after": "5"})


def _of_defect(request: AnyRequest, error: Exception) -> Response[ProblemDocument]:
    _log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return answer(INTERNAL, "the service's log has the details")


_HANDLERS: dict[type[Exception], Callable[[AnyRequest, Any], Response[ProblemDocument]]] = {
    HTTPException: _of_http,
    CoursewireError: _of_ours,
    RedisConnectionError: _of_storage,
    RedisTimeoutError: _of_storage,
    OutOfMemoryError: _of_storage,
    NoPermissionError: _of_storage,
    Exception: _of_defect,
}
EXCEPTION_HANDLERS = cast("ExceptionHandlersMap", _HANDLERS)


class ErrorAnswers(Layer):
    """Answers errors of later middleware, where earlier middleware can see the response; the
    framework would answer further out."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on."""
        try:
            await next_app(scope, receive, send)
        except Exception as error:
            if answer_of(scope) is not None:
                raise
            request: AnyRequest = Request(scope, receive, send)
            kind = next(kind for kind in type(error).__mro__ if kind in _HANDLERS)
            response = _HANDLERS[kind](request, error).to_asgi_response(None, request)
            await response(scope, receive, send)
