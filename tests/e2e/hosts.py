"""The service on two hosts, each with a path of its own to Valkey that a test may cut; and on
servers that sentinels watch."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.conftest import as_user, free_port
from tests.e2e.conftest import House, Process, until

SERVICE = "main"  # what the sentinels call the server
FAST_REPLICATION = ("--repl-diskless-sync-delay", "0")


class NetworkPath:
    """A TCP path to a port of this machine.

    While it is cut nothing passes, and nobody is told: connections stay open and new ones are
    taken, as where a network drops packets. What was sent meanwhile arrives once it is mended,
    however long ago its sender has given up, as TCP's retransmissions do.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.late_bytes = 0  # that waited for the path to be mended

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, theirs[1]), (theirs[0], writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    if not self._whole.is_set():
                        self.late_bytes += len(data)
                        await self._whole.wait()
                    sink.write(data)
                    await sink.drain()
                await self._whole.wait()  # an end does not get through either
        finally:
            sink.close()


class Host:
    """A worker and a scheduler with a data directory of their own."""

    def __init__(self, name: str, house: House, redis_url: str) -> None:
        self.name = name
        self._house = house
        for part in ("worker", "scheduler"):
            template = house.processes[part]
            house.processes[f"{part}-{name}"] = template.like(
                f"{part}-{name}",
                COURSEWIRE_REDIS_URL=redis_url,
                COURSEWIRE_DATA_DIR=str(house.directory / f"data-{name}"),
            )

    @property
    def processes(self) -> tuple[Process, Process]:
        found = self._house.processes
        return found[f"worker-{self.name}"], found[f"scheduler-{self.name}"]

    def start(self) -> None:
        for process in self.processes:
            process.start()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def stop(self) -> list[int]:
        """Ends it gracefully; returns the exit codes."""
        return [process.stop() for process in self.processes]


class TwoHosts(House):
    """Two hosts, `a` and `b`, beside one Valkey."""

    def __init__(self, directory: Path, courses: int) -> None:
        super().__init__(directory, courses)
        valkey_port = int(self.redis_url.rpartition(":")[2].partition("/")[0])
        self.paths = {name: NetworkPath(valkey_port) for name in "ab"}
        self.hosts = {
            name: Host(name, self, as_user(f"redis://127.0.0.1:{path.port}/0"))
            for name, path in self.paths.items()
        }
        for name in ("worker", "scheduler"):
            del self.processes[name]

    async def start(self, *names: str) -> None:
        if not names:
            for path in self.paths.values():
                await path.open()
        await super().start(*names)

    async def close(self) -> None:
        await super().close()
        for path in self.paths.values():
            await path.close()


class Watched(House):
    """Two hosts beside a Valkey with a replica, both watched by three sentinels."""

    def __init__(self, directory: Path, courses: int) -> None:
        super().__init__(directory, courses)
        first = self.processes["valkey"]
        primary = int(self.redis_url.rpartition(":")[2].partition("/")[0])
        replica = free_port()
        self.ports = {"valkey": primary, "replica": replica}
        replica_directory = directory / "replica"
        replica_directory.mkdir()
        self.sentinel_ports = [free_port() for _ in range(3)]
        processes = {
            "valkey": first.like("valkey", *FAST_REPLICATION),
            "replica": first.like(
                "replica",
                *("--port", str(replica), "--dir", str(replica_directory)),
                *("--replicaof", "127.0.0.1", str(primary)),
                *FAST_REPLICATION,
            ),
        }
        for number, port in enumerate(self.sentinel_ports):
            home = directory / f"sentinel-{number}"
            home.mkdir()
            configuration = home / "sentinel.conf"
            configuration.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 6000\n"
            )
            processes[f"sentinel-{number}"] = Process(
                f"sentinel-{number}",
                [first.argv[0], str(configuration), "--sentinel"],
                {},
                directory,
            )
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        url = as_user(f"sentinel://{addresses}/0?service={SERVICE}")
        self.hosts = {name: Host(name, self, url) for name in "ab"}
        self.processes["api"] = self.processes["api"].like("api", COURSEWIRE_REDIS_URL=url)
        for name in ("valkey", "worker", "scheduler"):
            del self.processes[name]
        self.processes = processes | self.processes

    async def start(self, *names: str) -> None:
        if not names:
            for name in ("valkey", "replica"):
                self.processes[name].start()
            await until(self._replicated, seconds=30, what=f"a replica\n{self.logs()}")
            names = tuple(name for name in self.processes if name not in ("valkey", "replica"))
        await super().start(*names)
        await until(self._watched, seconds=30, what=f"sentinels that agree\n{self.logs()}")

    async def primary_port(self) -> int | None:
        """The port of the server that the first sentinel takes for the primary."""
        async with Redis(port=self.sentinel_ports[0]) as sentinel:
            found = await sentinel.sentinel_get_master_addr_by_name(SERVICE)
        return None if found is None else int(found[1])

    async def roles(self) -> dict[str, str]:
        """`master` or `slave` of each server that answers."""
        found = {}
        for name, port in self.ports.items():
            with contextlib.suppress(RedisError, OSError):
                async with Redis(port=port) as redis:
                    found[name] = (await redis.info("replication"))["role"]
        return found

    async def _replicated(self) -> bool:
        with contextlib.suppress(RedisError, OSError):
            async with Redis(port=self.ports["replica"]) as redis:
                return (await redis.info("replication"))["master_link_status"] == "up"
        return False

    async def _watched(self) -> bool:
        """Whether each sentinel knows of the others and of the replica, and so can agree."""
        for port in self.sentinel_ports:
            with contextlib.suppress(RedisError, OSError):
                async with Redis(port=port) as sentinel:
                    known = (await sentinel.sentinel_masters())[SERVICE]
                    if known["num-other-sentinels"] == 2 and known["num-slaves"] >= 1:
                        continue
            return False
        return True
