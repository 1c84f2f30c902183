"""The sandbox and the service in the demo, through their HTTP APIs."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from service.commands.demo.oracle import LoggedChange
from service.domain.errors import CoursewireError

UPSTREAM_ID: Final = "sandbox:demo"
API_KEY: Final = "sandbox-key"
DELTA_SECONDS: Final = 2
FULL_SECONDS: Final = 15

_FIRST_CHANGES: Final[tuple[dict[str, str], ...]] = (
    {"op": "edit", "path": "revisions.title"},
    {"op": "create"},
    {"op": "delete"},
    {"op": "edit", "path": "revisions.description"},
    {"op": "provider"},
    {"op": "edit", "path": "custom_fields"},
    {"op": "skill"},
    {"op": "revision_add"},
    {"op": "restore"},
    {"op": "edit", "path": "revisions.status"},
    {"op": "vanish"},
)
_LATER_CHANGES: Final[Mapping[str, int]] = {
    "edit": 60, "provider": 8, "skill": 8, "revision_add": 4,
    "create": 5, "delete": 5, "vanish": 3, "restore": 7,
}  # fmt: skip
"""The weight of each, in percent."""

Record = dict[str, Any]


class DemoFailedError(CoursewireError):
    """The demo did not show the promised result."""


class Upstream:
    """The sandbox, through its control API."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.url = url
        self._client = client
        self._integration = f"{url}/control/integrations/{UPSTREAM_ID}"
        self._random = random.Random(1)
        self._ahead = deque(_FIRST_CHANGES)

    async def records(self) -> list[Record]:
        """All live courses, as the endpoint serves them."""
        answer = await self._client.get(
            f"{self.url}/v1/lms/courses",
            params={"page_size": "250"},
            headers={"authorization": f"Bearer {API_KEY}", "x-integration-id": UPSTREAM_ID},
        )
        results: list[Record] = _json(answer)["data"]["results"]
        return results

    async def record(self, course_id: str) -> Record | None:
        """One course, or None if it has vanished."""
        answer = await self._client.get(f"{self._integration}/courses/{course_id}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _json(answer)

    async def log(self, after: int) -> list[LoggedChange]:
        """The changes since number `after`."""
        answer = await self._client.get(f"{self._integration}/log", params={"after": after})
        return msgspec.convert(_json(answer), list[LoggedChange])

    async def change(self) -> None:
        """Change a course: first once in each way, then mostly edits."""
        if self._ahead:
            change = self._ahead.popleft()
        else:
            operations, weights = list(_LATER_CHANGES), list(_LATER_CHANGES.values())
            change = {"op": self._random.choices(operations, weights)[0]}
        answer = await self._client.post(f"{self._integration}/changes", json=[change])
        # no course fits the operation, such as restore
        if answer.status_code != httpx.codes.CONFLICT:
            _json(answer)


class Service:
    """Coursewire, through its public API."""

    def __init__(self, client: httpx.AsyncClient, url: str, token: str) -> None:
        self._client = client
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"}
        self._integration = self._subscription = ""

    async def register(self, base_url: str, receiver: str, secret: str) -> None:
        """Subscribe `receiver`, and register the sandbox at `base_url`."""
        subscription = await self._post("subscriptions", {"url": receiver, "secret": secret})
        credential = await self._post(
            "credentials", {"name": "sandbox", "base_url": base_url, "api_key": API_KEY}
        )
        integration = await self._post(
            "integrations",
            {
                "name": "demo",
                "upstream_id": UPSTREAM_ID,
                "credential_id": credential["id"],
                "delta_interval_seconds": DELTA_SECONDS,
                "full_interval_seconds": FULL_SECONDS,
                "baseline": "silent",
            },
        )
        self._subscription = f"subscriptions/{subscription['id']}"
        self._integration = f"integrations/{integration['id']}"

    async def integration(self) -> Record:
        """The integration and its present state."""
        return await self._get(self._integration)

    async def full_poll(self) -> str:
        """Request a full poll now. Returns its path."""
        poll = await self._post(f"{self._integration}/polls", {"kind": "full"})
        return f"{self._integration}/polls/{poll['id']}"

    async def poll(self, path: str) -> Record:
        """The poll at `path`."""
        return await self._get(path)

    async def pending(self) -> int:
        """The number of pending events of the receiver."""
        pending: int = (await self._get(self._subscription))["pending"]
        return pending

    async def _get(self, path: str) -> Record:
        answer = await self._client.get(f"{self._url}/v1/{path}", headers=self._headers)
        record: Record = _json(answer)
        return record

    async def _post(self, path: str, body: Record) -> Record:
        url = f"{self._url}/v1/{path}"
        answer = await self._client.post(url, json=body, headers=self._headers)
        record: Record = _json(answer)
        return record


def _json(answer: httpx.Response) -> Any:
    request = answer.request
    if not answer.is_success:
        raise DemoFailedError(
            f"{request.method} {request.url} was answered {answer.status_code}: {answer.text}"
        )
    return answer.json()


def newest_title(course: Record) -> str | None:
    """The title of the course's last revision, which is the sandbox's newest."""
    revisions = course.get("revisions") or [{}]
    title: str | None = revisions[-1].get("title")
    return title
