"""Calls a running service over its HTTP API, and shows its state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final, Literal, TextIO

import httpx
from rich.console import Console
from rich.text import Text

from service.clients.tls import make_context
from service.domain.errors import CoursewireError, SettingsError
from service.local.data_directory import api_url, completed_by_up
from service.settings import CLIENT_TOKEN, CLIENT_URL, PREFIX, Settings

EXIT_CODES: Final = {"ok": 0, "degraded": 1, "down": 2}
_COLOURS: Final = {"ok": "green", "degraded": "yellow", "down": "red"}
STRANGER: Final = "the server at this address is not Coursewire's API"
_SECONDS: Final = 10.0  # within which the API must answer
_PATIENT_SECONDS: Final = 75.0  # where it calls other systems, or waits for events


class RemoteError(CoursewireError):
    """The API does not answer as it should."""


class Remote:
    """The API of a running service. `url` replaces the address of `coursewire up` or the settings;
    `token` replaces the admin token."""

    def __init__(
        self,
        settings: Settings,
        url: str | None = None,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token = token or completed_by_up(settings).admin_token
        if token is None:
            raise SettingsError(
                f"{PREFIX}ADMIN_TOKEN is not set, and {settings.data_dir} holds no token: set "
                f"{PREFIX}DATA_DIR to the directory of `coursewire up`, or give a token as "
                f"{CLIENT_TOKEN} or --token-file"
            )
        self.url = (url or api_url(settings)).rstrip("/")
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {token}"},
            # Loading authorities takes a while, and http:// does not need them.
            verify=self.url.startswith("https:") and make_context(settings.ca_file),
            trust_env=False,
            transport=transport,
        )

    def status(self) -> dict[str, Any]:
        """The state of the system. Raises RemoteError."""
        return self._object("GET", "/v1/status")

    def control(self, verb: Literal["pause", "resume"], what: str | None) -> dict[str, Any]:
        """Stops or starts `what`, everything if None; returns the paused kinds. Raises
        RemoteError."""
        return self._object("POST", f"/v1/{verb}", {} if what is None else {"what": what})

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """The JSON of a response, None if it is not JSON. Raises RemoteError."""
        return _document(self.send(method, path, body, **options))

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The response of a successful request. Raises RemoteError."""
        patient = method != "GET" or "wait" in (query or {})
        try:
            answer = self._client.request(
                method,
                self.url.replace("%25", "%", 1) + path,  # httpx expects a zone unencoded
                headers=headers,
                params=query,
                json=body,
                timeout=httpx.Timeout(_PATIENT_SECONDS if patient else _SECONDS, connect=_SECONDS),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteError(
                f"{self.url} does not answer ({str(error) or type(error).__name__}); start the "
                "API there, for example with `coursewire up`, or give another address with --url "
                f"or {CLIENT_URL}"
            ) from error
        document = _document(answer)
        if not answer.is_success or (not isinstance(document, dict) and answer.content):
            raise RemoteError(
                _problem(document, answer.headers.get("x-request-id"))
                or f"{self.url}{path} answers {answer.status_code}: {STRANGER}"
            )
        return answer

    def _object(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        document = self.call(method, path, body)
        if not isinstance(document, dict) or not {"redis", "polling"} & document.keys():
            raise RemoteError(f"{self.url}{path}: {STRANGER}")
        return document


def _document(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _problem(document: Any, request_id: str | None) -> str:
    """The text of a problem document: its title and detail, each wrong field with its remedy, and
    the request's id."""
    if not isinstance(document, dict) or "title" not in document:
        return ""
    errors = document.get("errors", ())
    detail = "" if errors else document.get("detail")
    lines = [
        ": ".join(filter(None, (document["title"], detail))),
        *(f"  {one['field']} {one['message']}: {one['remedy']}" for one in errors),
        f"  request id: {request_id}" if request_id else "",
    ]
    return "\n".join(filter(None, lines))


def show_status(
    status: dict[str, Any], out: TextIO, *, as_json: bool, more: Iterable[tuple[str, str]] = ()
) -> int:
    """Prints a status, for people with `more` lines; returns its exit code."""
    if as_json:
        out.write(json.dumps(status, indent=2) + "\n")
    else:
        console = Console(file=out, highlight=False, soft_wrap=True)
        console.print(Text(status["status"], style=f"bold {_COLOURS[status['status']]}"))
        for reason in status["reasons"]:
            console.print(Text(f"  {reason}"))
        for name, text in chain(_rows(status), more if status["redis"]["up"] else ()):
            console.print(Text(f"{name:14}", style="bold").append(text, style="not bold"))
    return EXIT_CODES[status["status"]]


def show_paused(paused: dict[str, Any], out: TextIO, *, as_json: bool) -> None:
    """Prints the paused kinds of work."""
    if as_json:
        out.write(json.dumps(paused) + "\n")
        return
    out.writelines(
        f"{activity}: {f'paused since {since}' if since else 'running'}\n"
        for activity, since in paused.items()
    )


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    redis = status["redis"]
    if not redis["up"]:
        return
    yield "redis", _redis(redis)
    for one in status["schedulers"]:
        yield "scheduler", f"{one['name']}, looked for work at {one['last_turn_at']}"
    for one in status["workers"]:
        yield (
            "worker",
            f"{one['name']}, {one['state']}, last heartbeat at {one['last_heartbeat_at']}",
        )
    for one in status["queues"]:
        yield (
            "queue",
            (
                f"{one['name']}: {one['queued']} wait, {one['started']} under way, "
                f"{one['failed']} failed"
            ),
        )
    for name, activity in (("polls", "polling"), ("outboxes", "delivery")):
        work, since = status[name], status["paused"][activity]
        yield (
            name,
            f"{work['due']} due, {work['claimed']} claimed, {work['leased']} under way"
            + (f", the oldest due since {work['oldest_due_at']}" if work["oldest_due_at"] else "")
            + (f"; {activity} paused since {since}" if since else ""),
        )
    yield "lateness", _lateness(status["lateness"])
    states = {state: count for state, count in status["integrations"].items() if count}
    yield "integrations", _counts(states) or "none"
    yield "totals", _counts(status["totals"])


def _lateness(late: dict[str, Any]) -> str:
    receipts = f"{late['receipts']} received in the last {late['window_seconds'] / 60:.0f} min"
    if late["receipts"]:
        receipts += (
            f", half within {late['receipt_p50_seconds']:.3g} s of detection, 99 % within "
            f"{late['receipt_p99_seconds']:.3g} s"
        )
    since = {
        "oldest pending event": late["oldest_pending_at"],
        "oldest last complete poll": late["oldest_poll_at"],
        "oldest last full poll": late["oldest_full_poll_at"],
    }
    return "; ".join([receipts, *(f"{what} at {at}" for what, at in since.items() if at)])


def _redis(redis: dict[str, Any]) -> str:
    share = redis["memory_share"]
    megabytes = redis["memory_used_bytes"] / 1e6
    return (
        f"{redis['server']} {redis['version']}, {megabytes:.0f} MB in use"
        + (f" ({share:.0%} of its limit)" if share is not None else ", no limit")
        + f", persistence: {redis['persistence']}"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
