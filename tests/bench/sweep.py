"""Processor time of a full poll that finds nothing changed, against plainly decoding its pages."""

from __future__ import annotations

import gc
import time
from statistics import median
from typing import Literal

import msgspec

from service.domain.courses.record import Course
from tests.bench import pages, report
from tests.bench.command import Options, benchmark, option
from tests.bench.rig import Polled, Rig, embedded_server, rig
from tests.bench.sampling import Sampler, shown, us

AIM = 1.2  # times the plain decoding
_PROFILED_ROUNDS = 5


class _Data(msgspec.Struct, frozen=True):
    results: list[Course]
    next: str | None


class _Body(msgspec.Struct, frozen=True):
    status: Literal["success"]
    data: _Data


decode_page = msgspec.json.Decoder(_Body).decode


class _Round(msgspec.Struct, frozen=True):
    """Processor and wall seconds that one round took: decoding as a worker process would, the
    same without the garbage collector, which has most to do in that, and the full poll, with what
    Redis took for it; of reading the fingerprints and nothing else, what both sides took."""

    decode_cpu: float
    decode_wall: float
    uncollected_cpu: float
    uncollected_wall: float
    full_cpu: float
    full_wall: float
    redis_cpu: float
    read_cpu: float
    read_redis_cpu: float


@benchmark
@option("--courses", default=100_000)
@option("--rounds", default=7)
@option("--uncut", is_flag=True, help="records of 2.8 kB, as the sandbox makes them")
@option("--profile", is_flag=True, help="more rounds, to show where the time goes")
async def run(options: Options) -> None:
    """Measures and reports."""
    courses = options.courses
    bodies = pages.prepared(courses, pages.uncut if options.uncut else pages.shortened)
    async with embedded_server() as settings, rig(settings) as poller:
        pages.serve(poller.services.upstream, bodies.__getitem__)
        baseline = await poller.baseline(courses)
        await poller.full_poll(courses)  # so that nothing is done for the first time below
        ids = [[course.id for course in decode_page(body).data.results] for body in bodies]
        rounds = [
            await _round(poller, bodies, ids, courses, full_first=bool(number % 2))
            for number in range(options.rounds)
        ]
        server = await report.server_version(poller.services.redis)
        results = _results(rounds, courses)
        results["record_bytes"] = round(sum(map(len, bodies)) / courses)
        results["baseline_us"] = us(baseline.cpu, courses)
        _show(results)
        if options.profile:
            results["profile_us"] = await _profile(poller, courses)
        report.tell("sweep", server, results)


async def _round(
    poller: Rig, bodies: list[bytes], ids: list[list[str]], courses: int, *, full_first: bool
) -> _Round:
    if full_first:
        polled, redis_cpu = await _full_poll(poller, courses)
    decoded = _decode_all(bodies)
    gc.disable()
    uncollected = _decode_all(bodies)
    gc.enable()
    if not full_first:
        polled, redis_cpu = await _full_poll(poller, courses)
    read = await _read_all(poller, ids)
    return _Round(*decoded, *uncollected, polled.cpu, polled.wall, redis_cpu, *read)


async def _full_poll(poller: Rig, courses: int) -> tuple[Polled, float]:
    """A full poll, and the seconds of processor time that Redis took meanwhile."""
    redis = poller.services.redis
    gc.collect()
    before = await report.server_cpu_seconds(redis)
    polled = await poller.full_poll(courses)
    return polled, await report.server_cpu_seconds(redis) - before


async def _read_all(poller: Rig, ids: list[list[str]]) -> tuple[float, float]:
    """Reads the fingerprints a page at a time, as a full poll must, and does nothing with them: the
    seconds of processor time that this took here and in Redis."""
    redis = poller.services.redis
    _, state = await poller.services.integrations.get(poller.id)
    gc.collect()
    before, cpu = await report.server_cpu_seconds(redis), time.process_time()
    for page in ids:
        await poller.services.catalogue.read(poller.id, state.epoch, page)
    cpu = time.process_time() - cpu
    return cpu, await report.server_cpu_seconds(redis) - before


def _decode_all(bodies: list[bytes]) -> tuple[float, float]:
    """Decodes each page into structs, drops them, and returns the seconds that took."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    for body in bodies:
        decode_page(body)
    return time.process_time() - cpu, time.perf_counter() - wall


def _results(rounds: list[_Round], courses: int) -> dict[str, object]:
    ratios = sorted(each.full_cpu / each.decode_cpu for each in rounds)
    return {
        "courses": courses,
        "rounds": len(rounds),
        **{
            f"{name}_us": us(median(getattr(each, name) for each in rounds), courses)
            for name in _Round.__struct_fields__
        },
        "ratio": round(median(ratios), 2),
        "ratio_least": round(ratios[0], 2),
        "ratio_most": round(ratios[-1], 2),
        "ratio_uncollected": round(
            median(each.full_cpu / each.uncollected_cpu for each in rounds), 2
        ),
        "ratio_in_all": round(
            median((each.full_cpu + each.redis_cpu) / each.decode_cpu for each in rounds), 2
        ),
        "ratio_floor": round(
            median(
                (each.decode_cpu + each.read_cpu + each.read_redis_cpu) / each.decode_cpu
                for each in rounds
            ),
            2,
        ),
        "aim": AIM,
    }


def _show(results: dict[str, object]) -> None:
    spread = f"from {results['ratio_least']} to {results['ratio_most']}; aim {AIM}"
    report.show(
        f"full poll: {results['courses']} unchanged courses of {results['record_bytes']} bytes, "
        f"without the network, median of {results['rounds']} rounds",
        ("µs per record", "processor", "wall"),
        [
            ("plain typed decode", f"{results['decode_cpu_us']}", f"{results['decode_wall_us']}"),
            (
                "the same, garbage collector off",
                f"{results['uncollected_cpu_us']}",
                f"{results['uncollected_wall_us']}",
            ),
            ("unchanged full poll", f"{results['full_cpu_us']}", f"{results['full_wall_us']}"),
            (f"full poll / plain decode ({spread})", f"{results['ratio']}", ""),
            ("full poll / the same, collector off", f"{results['ratio_uncollected']}", ""),
            ("Redis, beside the full poll", f"{results['redis_cpu_us']}", ""),
            ("full poll and Redis / plain decode", f"{results['ratio_in_all']}", ""),
            ("reading the fingerprints alone, the worker", f"{results['read_cpu_us']}", ""),
            ("reading the fingerprints alone, Redis", f"{results['read_redis_cpu_us']}", ""),
            ("plain decode and reading / plain decode", f"{results['ratio_floor']}", ""),
            ("for comparison, once: the silent baseline", f"{results['baseline_us']}", ""),
        ],
    )


async def _profile(poller: Rig, courses: int) -> dict[str, float]:
    with Sampler() as sampler:
        for _ in range(_PROFILED_ROUNDS):
            await poller.full_poll(courses)
    title = f"where it goes, sampled over {_PROFILED_ROUNDS} more full polls"
    return shown(sampler, title, courses * _PROFILED_ROUNDS)
