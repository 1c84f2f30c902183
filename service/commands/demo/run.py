"""`coursewire demo`: the whole service at work on a sandbox upstream, shown in a terminal."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import msgspec
from redis.exceptions import RedisError
from rich.console import Console
from rich.text import Text

from service.authorities import CERT_DIR, CERT_FILE
from service.commands.demo.oracle import CLOCK_TOLERANCE, LoggedChange, ReportedEvent, disagreements
from service.commands.listen import STYLES, Event, Listener, Push, fitted, new_secret, open_console
from service.domain.errors import CoursewireError, StartError
from service.local.embedded_valkey import free_port
from service.local.supervisor.output import console_sink
from service.local.supervisor.programs import Program
from service.local.supervisor.supervisor import Supervisor
from service.local.supervisor.up import curl_line
from service.logs import configure
from service.secret_files import SUFFIX
from service.settings import PREFIX, Settings
from service.storage.redis.client import open_async

HOST: Final = "127.0.0.1"
UPSTREAM_ID: Final = "sandbox:demo"
API_KEY: Final = "sandbox-key"
COURSES: Final = 50
DELTA_SECONDS: Final = 2
FULL_SECONDS: Final = 15
LOG_FILE: Final = "demo.log"

_CHANGE_EVERY: Final = 1.5
"""Seconds between changes when nobody counts the events."""
_FASTEST: Final = 0.1
_SLOWEST: Final = 0.7
"""Seconds between changes, at least and at most, when a number of events is wanted."""
_LOOK_EVERY: Final = 0.1
"""Seconds between looks at whatever can only be asked for."""
_REQUEST_SECONDS: Final = 10.0
_TAIL_LINES: Final = 30
_SANDBOX_STOP_ORDER: Final = 3  # after the workers that ask it
_PLAIN_WIDTH: Final = 110  # columns where the output is no terminal

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
"""How often each is made, of a hundred."""

Record = dict[str, Any]


class DemoFailedError(CoursewireError):
    """The demo did not show what it promises."""


def demo(*, events: int | None, timeout: float, keep: bool) -> int:
    """Run the demo until SIGINT or SIGTERM, or until `events` events that agree with the
    sandbox's own log have been verified. Returns the exit code.

    `timeout` is how many seconds the start may take and, where `events` is given, the whole.
    `keep` leaves the data directory behind.

    Raises StartError or SettingsError, or DemoFailedError saying what did not come or agree.
    """
    return asyncio.run(_demo(events, timeout, keep=keep))


async def _demo(events: int | None, seconds: float, *, keep: bool) -> int:
    settings = await _settings()
    directory = Path(tempfile.mkdtemp(prefix="coursewire-demo-"))
    log = directory / LOG_FILE
    try:
        with log.open("w", encoding="utf-8") as file:
            configure("console", "info", "demo", stream=file)
            supervisor = Supervisor(
                msgspec.structs.replace(settings, data_dir=directory),
                sink=console_sink(file, colour=False),
            )
            show = Show(open_console(sys.stdout))
            performance = _Performance(supervisor, show, log, seconds)
            interrupted = await _interruptible(performance.run(events), supervisor.hurry)
    except BrokenPipeError:  # nobody watches any more
        raise
    except Exception:  # what the parts said last is the best explanation there is
        _print_tail(log)
        raise
    finally:
        if keep:
            sys.stderr.write(f"everything is left in {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 128 + signal.SIGINT if interrupted and events is not None else 0


async def _settings() -> Settings:
    """Settings that share nothing with another service on this machine. Only the Redis that
    the environment names is taken over, and only if its database is empty: workers of the
    demo would otherwise work on what others registered there.
    """
    variable = f"{PREFIX}REDIS_URL"
    environment = {
        f"{PREFIX}ALLOWED_TARGETS": "127.0.0.0/8",
        f"{PREFIX}PORT": "0",
        f"{PREFIX}LOG_FORMAT": "console",
    }
    for name in (variable, f"{variable}{SUFFIX}", CERT_FILE, CERT_DIR):
        environment[name] = os.environ.get(name, "")
    settings = Settings.from_env(environment)
    if settings.redis_url is None:
        return settings
    redis = open_async(settings.redis_url)
    try:
        cursor, keys = await redis.scan(count=1_000)
        while cursor and not keys:
            cursor, keys = await redis.scan(cursor, count=1_000)
    except (RedisError, OSError) as error:
        raise StartError(f"{variable} does not lead to a Redis that answers: {error}") from error
    finally:
        await redis.aclose()
    if keys:
        raise StartError(
            f"the database that {variable} names holds data; name an empty one, or unset it "
            "and the demo brings its own"
        )
    return settings


async def _interruptible(work: Coroutine[Any, Any, None], hurry: Callable[[], None]) -> bool:
    """Run `work` to its end, or cancel it at the first signal; a second one hurries its
    clean-up. Whether a signal came."""
    task = asyncio.create_task(work)
    interrupted = False

    def on_signal() -> None:
        nonlocal interrupted
        if interrupted:
            hurry()
        interrupted = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return interrupted


def _print_tail(log: Path) -> None:
    with suppress(OSError), log.open(encoding="utf-8", errors="replace") as file:
        lines = "".join(deque(file, maxlen=_TAIL_LINES))
        sys.stderr.write(f"--- the end of the log (--keep leaves all of it there)\n{lines}---\n")


# --- what takes part ------------------------------------------------------------------------


class Upstream:
    """The sandbox, as its control API shows it."""

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
        """One course, or None where it has vanished."""
        answer = await self._client.get(f"{self._integration}/courses/{course_id}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _json(answer)

    async def log(self, after: int) -> list[LoggedChange]:
        """The changes since number `after`, whoever made them."""
        answer = await self._client.get(f"{self._integration}/log", params={"after": after})
        return msgspec.convert(_json(answer), list[LoggedChange])

    async def change(self) -> None:
        """Have some course change: first one of each kind, then mostly edits."""
        if self._ahead:
            change = self._ahead.popleft()
        else:
            operations, weights = list(_LATER_CHANGES), list(_LATER_CHANGES.values())
            change = {"op": self._random.choices(operations, weights)[0]}
        answer = await self._client.post(f"{self._integration}/changes", json=[change])
        if answer.status_code != httpx.codes.CONFLICT:  # no course fits, say, to restore
            _json(answer)


class Service:
    """Coursewire, as its public API shows it."""

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
        """The integration as it stands."""
        return await self._get(self._integration)

    async def full_poll(self) -> str:
        """Ask for a full poll now. Returns where to see how it goes."""
        poll = await self._post(f"{self._integration}/polls", {"kind": "full"})
        return f"{self._integration}/polls/{poll['id']}"

    async def poll(self, path: str) -> Record:
        """The poll at `path`."""
        return await self._get(path)

    async def pending(self) -> int:
        """How many events are on their way to the receiver."""
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


# --- what is shown --------------------------------------------------------------------------


class Show:
    """The terminal, in columns that fit it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        width = console.width if console.is_terminal else _PLAIN_WIDTH
        rest = max(24, width - 38)  # what the other columns and the gaps take
        self._title_width = rest * 20 // 43
        self._detail_width = rest - self._title_width

    def say(self, text: str = "", style: str = "") -> None:
        """One or more lines of text."""
        self._console.print(text, style=style, soft_wrap=True)

    def places(self, places: Mapping[str, str]) -> None:
        """Names and where they are; never wrapped, so that they can be copied."""
        for name, place in places.items():
            self._console.print(Text.assemble("  ", (f"{name:9}", "bold"), place), soft_wrap=True)
        self.say()

    def change(self, change: LoggedChange, title: str) -> None:
        """A change at the upstream."""
        self._line(change.at, "upstream", "blue", change.op, "", title, ", ".join(change.paths))

    def event(self, push: Push, event: Event, title: str, latency: float | None) -> None:
        """A verified event, `latency` seconds after the change it reports."""
        kind = event.type.rpartition(".")[2]
        data = event.data
        detail = ", ".join((*data.changed, *filter(None, (data.reason, data.evidence))))
        if push.times > 1:
            detail = f"duplicate; {detail}"
        after = "" if latency is None else f"{latency:.1f} s"
        self._line(push.at, "✓ event", "green", kind, STYLES.get(kind, ""), title, detail, after)

    def refused(self, push: Push) -> None:
        """A push that did not verify."""
        self._line(push.at, "✗ push", "bold red", "refused", "bold red", push.refusal or "", "")

    def _line(
        self,
        at: datetime,
        source: str,
        source_style: str,
        verb: str,
        verb_style: str,
        title: str,
        detail: str,
        after: str = "",
    ) -> None:
        line = Text.assemble(
            (f"{at.astimezone():%H:%M:%S} ", "dim"),
            (f"{source:8}  ", source_style),
            (f"{fitted(verb.removeprefix('revision_'), 8):8} ", verb_style),
            f"{fitted(title, self._title_width):{self._title_width}}  ",
            (f"{fitted(detail, self._detail_width):{self._detail_width}} ", "cyan"),
            (f"{after:>6}", "dim"),
        )
        line.rstrip()
        self._console.print(line, soft_wrap=True)


class Story:
    """What changed, what arrived, and whether the two agree."""

    def __init__(
        self, show: Show, upstream: Upstream, service: Service, inbox: asyncio.Queue[Push]
    ) -> None:
        self.verified = 0
        self.changes = 0
        self.latencies: list[float] = []
        self._show = show
        self._upstream = upstream
        self._service = service
        self._inbox = inbox
        self._last = 0  # the number of the last change that was read
        self._titles: dict[str, str] = {}
        self._known: frozenset[str] = frozenset()
        self._log: dict[str, list[LoggedChange]] = defaultdict(list)
        self._events: dict[str, list[ReportedEvent]] = defaultdict(list)

    async def begin(self) -> int:
        """Take what is there now as known. Returns how many courses that is."""
        earlier = await self._upstream.log(0)
        self._last = earlier[-1].n if earlier else 0
        for record in await self._upstream.records():
            self._titles[record["id"]] = newest_title(record) or record["id"]
        self._known = frozenset(self._titles)
        return len(self._known)

    async def change(self) -> None:
        """Have a course change."""
        await self._upstream.change()

    async def look(self) -> None:
        """Show what has changed and what has arrived since, waiting a little for the latter.

        Raises DemoFailedError when an event does not agree with the log.
        """
        pushes: list[Push] = []
        with suppress(TimeoutError):
            pushes.append(await asyncio.wait_for(self._inbox.get(), _LOOK_EVERY))
        while not self._inbox.empty():
            pushes.append(self._inbox.get_nowait())
        # Read after the pushes were taken: it then has whatever they report.
        for change in await self._upstream.log(self._last):
            await self._note(change)
        for push in pushes:
            self._take(push)

    async def settle(self) -> None:
        """Wait until all changes so far must have been reported, and see that they were.

        Raises DemoFailedError when they were not.
        """
        await self.look()
        settled = self._last
        full_poll = await self._service.full_poll()
        while (poll := await self._service.poll(full_poll))["state"] != "completed":
            if poll["state"] == "failed":
                raise DemoFailedError(f"the last full poll failed: {poll['error']}")
            await self.look()
        while await self._service.pending():
            await self.look()
        await self.look()
        self._check(self._log.keys() | self._events.keys(), settled)

    async def _note(self, change: LoggedChange) -> None:
        self._last = change.n
        self.changes += 1
        self._log[change.course_id].append(change)
        record = await self._upstream.record(change.course_id)
        title = newest_title(record) if record is not None else None
        if title:
            self._titles[change.course_id] = title
        self._show.change(change, self._titles.get(change.course_id, change.course_id))

    def _take(self, push: Push) -> None:
        event = push.event
        if event is None:
            self._show.refused(push)
            raise DemoFailedError(f"a push was refused: {push.refusal}")
        if push.altered:
            raise DemoFailedError(f"{push.id} came again with another body")
        reported = _reported(push, event)
        title = newest_title(event.data.course or {}) or self._titles.get(reported.course_id)
        latency = self._latency(push, reported)
        self._show.event(push, event, title or reported.course_id, latency)
        if push.times > 1:
            return
        self._events[reported.course_id].append(reported)
        self._check([reported.course_id], 0)
        self.verified += 1
        if latency is not None:
            self.latencies.append(latency)

    def _latency(self, push: Push, reported: ReportedEvent) -> float | None:
        """Seconds since the last change that the event can report."""
        latest = reported.timestamp + CLOCK_TOLERANCE
        times = [change.at for change in self._log[reported.course_id] if change.at <= latest]
        return (push.at - times[-1]).total_seconds() if times else None

    def _check(self, course_ids: Collection[str], settled: int) -> None:
        found = disagreements(
            self._known,
            [change for course_id in course_ids for change in self._log[course_id]],
            [event for course_id in course_ids for event in self._events[course_id]],
            settled=settled,
        )
        if found:
            raise DemoFailedError(
                "the events do not agree with the sandbox's log: " + "\n  ".join(found)
            )


def _reported(push: Push, event: Event) -> ReportedEvent:
    data = event.data
    if push.id is None or data.course_id is None or data.sequence is None:
        raise DemoFailedError(f"a {event.type} came without course or sequence: {push.body!r}")
    return ReportedEvent(
        id=push.id,
        type=event.type,
        timestamp=event.timestamp,
        course_id=data.course_id,
        sequence=data.sequence,
        previous_sequence=data.previous_sequence,
        changed=data.changed,
        reason=data.reason,
        evidence=data.evidence,
    )


# --- the performance ------------------------------------------------------------------------


def _sandbox(port: int) -> Program:
    """The stand-in upstream as one more child."""
    return Program(
        name="sandbox",
        argv=(
            *(sys.executable, "-m", "service.cli", "sandbox"),
            *("--host", HOST, "--port", str(port), "--api-key", API_KEY),
            *("--integration", UPSTREAM_ID, "--courses", str(COURSES)),
        ),
        stop_order=_SANDBOX_STOP_ORDER,
    )


async def _answering(upstream: Upstream) -> None:
    while True:
        with suppress(httpx.TransportError):
            await upstream.log(0)
            return
        await asyncio.sleep(_LOOK_EVERY)


class _Performance:
    """One run, from the start of the processes to their end."""

    def __init__(self, supervisor: Supervisor, show: Show, log: Path, seconds: float) -> None:
        self._supervisor = supervisor
        self._show = show
        self._log = log
        self._seconds = seconds
        self._waiting_for = "the service did not start"

    async def run(self, events: int | None) -> None:
        """Start everything, show what happens, stop everything."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self._seconds
        inbox: asyncio.Queue[Push] = asyncio.Queue()
        secret = new_secret()
        self._show.say("Starting Valkey, API, worker, scheduler and a sandbox upstream ...")
        async with (
            Listener(secret, inbox.put_nowait) as listener,
            self._stopping(),
            httpx.AsyncClient(trust_env=False, timeout=_REQUEST_SECONDS) as client,
        ):
            try:
                async with asyncio.timeout_at(deadline):
                    upstream, service = await self._start(client, listener.url, secret)
                story = Story(self._show, upstream, service, inbox)
                async with asyncio.timeout_at(None if events is None else deadline):
                    await self._tell(story, events, begun)
            except TimeoutError:
                raise DemoFailedError(f"within {self._seconds:g} s {self._waiting_for}") from None
            except httpx.HTTPError as error:
                raise DemoFailedError(
                    f"a request of the demo's own failed: {type(error).__name__} {error}"
                ) from error

    @asynccontextmanager
    async def _stopping(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._supervisor.stop()

    async def _start(
        self, client: httpx.AsyncClient, receiver: str, secret: str
    ) -> tuple[Upstream, Service]:
        await self._supervisor.start()
        port = free_port(HOST)
        self._supervisor.add(_sandbox(port))
        upstream = Upstream(client, f"http://{HOST}:{port}")
        await self._supervisor.ready()
        self._waiting_for = "the sandbox did not answer"
        await _answering(upstream)
        token = self._supervisor.settings.admin_token or ""
        service = Service(client, self._supervisor.api_url, token)
        self._introduce(upstream, receiver)
        await service.register(f"{upstream.url}/v1", receiver, secret)
        await self._baseline(service)
        return upstream, service

    def _introduce(self, upstream: Upstream, receiver: str) -> None:
        api = self._supervisor.api_url
        self._show.say()
        self._show.places(
            {
                "API": f"{api}/v1",
                "docs": f"{api}/schema",
                "metrics": f"{api}/metrics",
                "token": str(self._supervisor.token_file),
                "sandbox": f"{upstream.url}/control/integrations",
                "receiver": receiver,
                "log": str(self._log),
                "try": curl_line(self._supervisor),
            }
        )

    async def _baseline(self, service: Service) -> None:
        while True:
            integration = await service.integration()
            error = integration["error"]
            self._waiting_for = (
                f"the baseline was not complete: the integration is {integration['state']}"
                f"{'' if error is None else ', ' + error['message']}"
            )
            if integration["state"] == "active":
                return
            if integration["state"] == "error":
                raise DemoFailedError(self._waiting_for)
            await asyncio.sleep(_LOOK_EVERY)

    async def _tell(self, story: Story, events: int | None, begun: float) -> None:
        courses = await story.begin()
        self._show.say(
            f"{courses} courses are known; from now on some change. A poll every {DELTA_SECONDS} s "
            f"sees that;\nwhat vanishes, providers and skills wait for a full poll, every "
            f"{FULL_SECONDS} s. Ctrl-C ends.\n"
        )
        every = _CHANGE_EVERY
        if events is not None:
            # Faster than needed: some changes merge, and the start and the last full poll take
            # time.
            every = min(_SLOWEST, max(_FASTEST, self._seconds / events / 4))
        loop = asyncio.get_running_loop()
        due = loop.time()
        first: float | None = None
        try:
            while events is None or story.verified < events:
                self._waiting_for = f"{story.verified} of {events} events came"
                if loop.time() >= due:
                    due = loop.time() + every
                    await story.change()
                await story.look()
                if first is None and story.verified:
                    first = loop.time() - begun
            self._waiting_for = "what was under way did not arrive"
            await story.settle()
        except asyncio.CancelledError:
            # At a signal, or at the end of the time. What is under way is not waited for.
            self._summarise(story, first, "none at odds with")
            raise
        self._summarise(story, first, "in full agreement with")

    def _summarise(self, story: Story, first: float | None, relation: str) -> None:
        self._show.say(
            f"\n{story.verified} events verified, {relation} the {story.changes} changes in the "
            "sandbox's log."
        )
        if first is not None and story.latencies:
            self._show.say(
                f"The first came {first:.1f} s after the start; from change to verified push "
                f"took {median(story.latencies):.1f} s\nin the median, "
                f"{max(story.latencies):.1f} s at most."
            )
