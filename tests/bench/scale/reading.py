"""Many events read by cursor, and the console's lists."""

from __future__ import annotations

import asyncio
import time

from tests.bench import console, delivery_lists, report
from tests.bench.listeners import TOKEN, ready
from tests.bench.scale.installation import Installation
from tests.bench.source import PAGE

_LIMIT = 500  # events of a page
_COURSES = 5_000


async def events(one: Installation, count: int) -> None:
    """The log is read from its beginning over one connection."""
    await one.source.start()
    async with one.step("appended", count):
        for start in range(0, count, PAGE):
            numbers = range(start, min(start + PAGE, count))
            await one.source.commit([], [f"course-{number % _COURSES}" for number in numbers])
    port = await _api(one)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cursor, times, read = "", [], 0
    async with one.step("pulled", count) as figures:
        while read < count:
            begun = time.perf_counter()
            target = f"/v1/events?limit={_LIMIT}" + (f"&after={cursor}" if cursor else "")
            request = (
                f"GET {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            )
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            page = await reader.readexactly(int(length))
            found = page.count(b'"event_id":')
            if not found:
                raise AssertionError(f"the log ended after {read} of {count} events")
            read += found
            cursor = page.rpartition(b'"cursor":"')[2].partition(b'"')[0].decode()
            times.append(time.perf_counter() - begun)
        tenth = max(1, len(times) // 10)
        figures["first_tenth_page_ms"] = round(sum(times[:tenth]) / tenth * 1000, 1)
        figures["last_tenth_page_ms"] = round(sum(times[-tenth:]) / tenth * 1000, 1)
        figures["longest_page_ms"] = round(max(times) * 1000, 1)
    writer.close()
    await one.maintain(count)


async def lists(one: Installation, count: int) -> None:
    """What the console's pages request, over as many events and courses, a tenth as many
    integrations and a hundredth as many subscriptions."""
    redis = one.services.redis
    async with one.step("stored", count):
        await console.fill_integrations(redis, max(10, count // 10))
        await console.fill_courses(redis, count)
        await delivery_lists.fill_few(redis, max(600, count))
        await delivery_lists.fill_many(redis, max(600, count // 10))
        await console.fill_history(redis)
    port = await _api(one)

    async def busy() -> float:
        return await report.server_cpu_seconds(redis)

    async with one.step("console's lists", len(console.cases())) as figures:
        for name, (median, *_) in (await console.measure(port, 3, busy)).items():
            figures[name] = median


async def _api(one: Installation) -> int:
    await one.start("api", "service.cli", "api")
    port = one.services.settings.port
    await ready(port)
    return port
