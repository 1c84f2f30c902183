"""What events cost that a full poll finds: every title differs from the last poll.

`sweepers` compares the same with others, over HTTP.
"""

from __future__ import annotations

import gc
from statistics import median

from msgspec.structs import replace

from service.domain.review.guards import Guards
from service.sandbox.content import Course
from tests.bench import pages, report
from tests.bench.command import Options, benchmark, option
from tests.bench.rig import Rig, embedded_server, rig
from tests.bench.sampling import Sampler, shown

_ANY_NUMBER = Guards(changed_share=1)


@benchmark
@option("--courses", default=10_000)
@option("--rounds", default=7)
async def run(options: Options) -> None:
    """Measures and reports."""
    courses = options.courses
    catalogues = [pages.prepared(courses, shape) for shape in (pages.uncut, _retitled)]
    async with embedded_server() as settings, rig(settings, guards=_ANY_NUMBER) as poller:
        pages.serve(poller.services.upstream, catalogues[0].__getitem__)
        await poller.baseline(courses)
        sampler = Sampler()
        rounds = []
        for number in range(1, options.rounds + 1):
            pages.serve(poller.services.upstream, catalogues[number % 2].__getitem__)
            rounds.append(await _round(poller, sampler, courses))
        server = await report.server_version(poller.services.redis)
    cpu, wall, redis = (1e6 / courses * median(each) for each in zip(*rounds, strict=True))
    report.show(
        f"full poll: {courses} edited courses, without the network, median of {len(rounds)} rounds",
        ("µs per record", ""),
        [
            ("the worker's processor time", f"{cpu:.1f}"),
            ("Redis's processor time", f"{redis:.1f}"),
            ("wall", f"{wall:.1f}"),
        ],
    )
    title = "where the worker's goes, sampled in all rounds"
    results = {
        "courses": courses,
        "rounds": len(rounds),
        "cpu_us": round(cpu, 1),
        "redis_cpu_us": round(redis, 1),
        "wall_us": round(wall, 1),
        "profile_us": shown(sampler, title, courses * len(rounds)),
    }
    report.tell("edits", server, results)


async def _round(poller: Rig, sampler: Sampler, courses: int) -> tuple[float, float, float]:
    """The seconds that a poll took: the worker's processor time, wall, and that of Redis."""
    gc.collect()
    before = await report.server_cpu_seconds(poller.services.redis)
    with sampler:
        polled = await poller.poll(courses, "updated")
    redis = await report.server_cpu_seconds(poller.services.redis) - before
    return polled.cpu, polled.wall, redis


def _retitled(course: Course) -> Course:
    *earlier, last = course.revisions
    return replace(course, revisions=(*earlier, replace(last, title=f"{last.title}, once more")))
