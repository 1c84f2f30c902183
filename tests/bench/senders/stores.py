"""What the peers keep their state in: PostgreSQL, RabbitMQ and Valkey, fresh for each run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from service.local.embedded_valkey import binary_path
from tests.bench.senders.programs import Program, listens, program, run
from tests.conftest import free_port

_POSTGRES_PLACES = "/usr/lib/postgresql/*/bin"  # Debian's, which are not on the path
_RABBIT_PLACE = "/usr/lib/rabbitmq/bin"  # Debian's own wrapper on the path changes the user
_USER = "postgres"  # whom PostgreSQL runs as where this process is root's
_NO_GROUPS = "--clear-groups"
_CONNECTIONS = 300  # the defaults of the peers' pools do not fit into PostgreSQL's 100


def postgres_programs() -> Path | None:
    """The directory of PostgreSQL's programs, if they are installed."""
    places: Sequence[Path] = sorted(Path("/").glob(_POSTGRES_PLACES.lstrip("/")), reverse=True)
    if found := shutil.which("initdb"):
        places = [Path(found).resolve().parent, *places]
    return next((one for one in places if (one / "postgres").exists()), None)


def rabbit_server() -> str | None:
    """RabbitMQ's server, if it is installed."""
    return shutil.which("rabbitmq-server", path=f"{_RABBIT_PLACE}:{os.environ.get('PATH', '')}")


def lacking(*, rabbit: bool = False) -> list[str]:
    """What is not installed."""
    return [
        name
        for name, found in (
            ("PostgreSQL (initdb, postgres)", postgres_programs()),
            *(
                [("RabbitMQ (rabbitmq-server, epmd)", rabbit_server() and _epmd())]
                if rabbit
                else []
            ),
        )
        if not found
    ]


class Stores:
    """Starts stores in a directory, and ends them with the stack."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack

    async def _start(self, *command: str | Path, port: int, name: str, **more: object) -> Program:
        started = await self._stack.enter_async_context(
            program(*command, log=self._directory / f"{name}.log", **more)
        )
        await listens(port, started)
        return started

    async def postgres(self) -> tuple[Program, str]:
        """A server; and the address of its empty database, without the scheme."""
        programs = postgres_programs()
        assert programs is not None
        user = _USER if os.geteuid() == 0 else None  # it refuses to be root's
        prefix = (
            () if user is None else ("setpriv", f"--reuid={user}", f"--regid={user}", _NO_GROUPS)
        )
        data, port = self._directory / "postgres", free_port()
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user, user)
        setup = self._directory / "setup.log"
        await run(
            *prefix, programs / "initdb", "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8",
            "--locale=C", "--no-sync", log=setup, directory=Path("/"),
        )  # fmt: skip
        started = await self._start(
            *prefix, programs / "postgres", "-D", data, "-p", str(port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", f"max_connections={_CONNECTIONS}",
            port=port, name="postgres", directory=Path("/"), stop=signal.SIGQUIT,
        )  # fmt: skip
        await started.writes("ready to accept connections")
        return started, f"bench@127.0.0.1:{port}/postgres"

    async def valkey(self) -> tuple[Program, int]:
        """A server that syncs its append-only file every second, as Coursewire's own; its port."""
        data, port = self._directory / "valkey", free_port()
        data.mkdir()
        started = await self._start(
            binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--dir", data,
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            port=port, name="valkey", stop=signal.SIGKILL,
        )  # fmt: skip
        return started, port

    async def rabbit(self) -> tuple[dict[str, Program], int]:
        """A node with a port mapper of its own, and its port."""
        server, epmd = rabbit_server(), _epmd()
        assert server is not None
        assert epmd is not None
        base, port, mapper_port = self._directory / "rabbit", free_port(), free_port()
        base.mkdir()
        (base / "rabbitmq.conf").touch()
        (base / "enabled_plugins").write_text("[].\n")
        environment = {
            "HOME": str(base),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": f"bench{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
        }
        both: Mapping[str, object] = {"environment": environment, "stop": signal.SIGKILL}
        mapper = await self._start(epmd, port=mapper_port, name="epmd", **both)
        node = await self._start(server, port=port, name="rabbitmq", **both)
        return {"epmd": mapper, "rabbitmq": node}, port


def _epmd() -> str | None:
    """Erlang's port mapper; without one, RabbitMQ would start one that outlives the benchmark."""
    return shutil.which("epmd")
