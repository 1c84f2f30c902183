"""The limit of delivery: a bare aiohttp loop that posts requests signed in advance.

Takes a file of requests (MessagePack: url, headers, body) and how many are out at once, says
`ready`, and after a line of input posts them all and says how long that took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import uvloop

Request = tuple[str, dict[str, str], bytes]


async def post_all(requests: list[Request], concurrency: int) -> dict[str, float]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        left: Iterator[Request] = iter(requests)

        async def post() -> None:
            for url, headers, body in left:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    if answer.status != 204:
                        raise AssertionError(f"answered {answer.status}")

        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(post() for _ in range(concurrency)))
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def main() -> None:
    path, concurrency = sys.argv[1:]
    requests = msgspec.msgpack.decode(Path(path).read_bytes(), type=list[Request])
    print('"ready"', flush=True)  # noqa: T201 - what its parent reads
    sys.stdin.readline()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(post_all(requests, int(concurrency)))
    print(msgspec.json.encode(took).decode(), flush=True)  # noqa: T201 - what its parent reads
    sys.stdin.readline()


if __name__ == "__main__":
    main()
