"""Memory of the server for each course of a catalogue."""

from __future__ import annotations

from statistics import mean

from redis.asyncio import Redis

from service.storage.redis import keys
from tests.bench import pages, report
from tests.bench.command import Options, benchmark, option
from tests.bench.rig import embedded_server, rig

AIM_MB = 250  # for a million courses
_MILLION = 1_000_000
_SAMPLE = 1_000


@benchmark
@option("--courses", default=200_000)
async def run(options: Options) -> None:
    """Measures and reports."""
    courses = options.courses
    async with embedded_server() as settings, rig(settings) as poller:
        redis = poller.services.redis
        pages.serve(poller.services.upstream, pages.Generated(courses))
        before = await _used(redis)
        await poller.baseline(courses)
        used = (await _used(redis) - before) / courses
        _, state = await poller.services.integrations.get(poller.id)
        sample = [pages.course_id_of(number) for number in range(min(courses, _SAMPLE))]
        packed = await redis.hmget(keys.catalogue(poller.id, state.epoch), sample)
        fingerprint = mean(len(each) for each in packed)
        content = fingerprint + pages.ID_CHARACTERS
        server = await report.server_version(redis)
    results = {
        "courses": courses,
        "bytes_per_course": round(used, 1),
        "fingerprint_bytes": round(fingerprint, 1),
        "overhead": round(used / content, 2),
        "million_mb": round(used * _MILLION / 1e6),
        "aim_mb": AIM_MB,
    }
    report.show(
        f"catalogue: the server's memory after a baseline of {courses} courses",
        ("", "figure"),
        [
            ("one packed fingerprint, bytes", f"{results['fingerprint_bytes']}"),
            (f"with its id of {pages.ID_CHARACTERS} characters", f"{content:.1f}"),
            ("used_memory per course, bytes", f"{results['bytes_per_course']}"),
            ("ratio of the two", f"{results['overhead']}"),
            (f"a million courses, MB (aim: {AIM_MB})", f"{results['million_mb']}"),
        ],
    )
    report.tell("catalogue", server, results)


async def _used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])
