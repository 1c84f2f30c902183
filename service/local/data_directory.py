"""The data directory of `coursewire up`: its lock, and its private files."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from service.domain.errors import StartError
from service.domain.hosts import in_url, reachable
from service.settings import PREFIX, Settings

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
ENCRYPTION_KEYS_FILE = "encryption-keys"
REDIS_URL_FILE = "redis-url"  # present while an embedded server runs
API_URL_FILE = "api-url"  # present while the API runs

LOCK = "lock"
_PRIVATE = 0o600
_HANDOVER_SECONDS = 10.0  # for processes of a killed supervisor to end
_HANDOVER_POLL_SECONDS = 0.05


class DataDirectory:
    """A data directory locked by this process, created if it does not exist. The lock is a `flock`
    on `<path>/lock`, which contains the pid of its holder. A process that inherits `lock_fd` shares
    the lock: the directory stays locked until that process has ended too, so that no other server
    opens a database that is still being written.

    Raises StartError, in one line, if the directory cannot be written or is in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"the data directory {self.path} cannot be written ({error.strerror}); "
                "set COURSEWIRE_DATA_DIR to one that can"
            ) from error
        try:
            self._take_lock()
            os.ftruncate(self.lock_fd, 0)
            os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(self.lock_fd)
            raise

    def _take_lock(self) -> None:
        deadline = time.monotonic() + _HANDOVER_SECONDS
        while True:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self.lock_fd, 32, 0).decode(errors="replace").strip()
                if _is_alive(holder) or time.monotonic() > deadline:
                    raise StartError(
                        f"the data directory {self.path} is in use by process "
                        f"{holder or 'unknown'}; stop that one, or set COURSEWIRE_DATA_DIR "
                        "to another directory"
                    ) from None
                time.sleep(_HANDOVER_POLL_SECONDS)
            else:
                return

    def release(self) -> None:
        """Release the directory, as soon as no child holds `lock_fd`."""
        os.ftruncate(self.lock_fd, 0)  # the next supervisor waits for such a child
        os.close(self.lock_fd)

    def secret(self, name: str, make: Callable[[], str]) -> tuple[str, str | None]:
        """The secret in the file `name`, generated if the file does not exist; and a message about
        it. A file that other users may read is made private again. Raises StartError if it cannot
        be read or is empty.
        """
        path = self.path / name
        try:
            if not path.exists():
                self.write_private(name, f"{make()}\n")
                return self._read(path), f"made {path}"
            remark = None
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode != _PRIVATE:
                path.chmod(_PRIVATE)
                remark = f"{path} had mode {mode:04o}; made it {_PRIVATE:04o}"
            return self._read(path), remark
        except OSError as error:
            raise StartError(f"{path} cannot be used: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StartError(f"{path} is not text; restore it from a backup") from error

    def _read(self, path: Path) -> str:
        text = path.read_text().strip()
        if not text:
            raise StartError(f"{path} is empty; restore it, or remove it to generate a new one")
        return text

    def write_private(self, name: str, text: str) -> Path:
        """Write the file `name` whole or not at all, readable by its owner alone."""
        path = self.path / name
        draft = path.with_name(f".{name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            # If a power failure loses a key, everything that it encrypted is lost too.
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return path


def completed_by_up(settings: Settings) -> Settings:
    """The settings, completed from the data directory of `coursewire up`, for commands that inspect
    a running service.

    Raises StartError if a file there cannot be read, SettingsError if its value cannot be used.
    """
    environment = settings.to_environ()
    for name, field, file in (
        ("ADMIN_TOKEN", settings.admin_token, ADMIN_TOKEN_FILE),
        ("ENCRYPTION_KEYS", settings.encryption_keys, ENCRYPTION_KEYS_FILE),
        ("REDIS_URL", settings.redis_url, REDIS_URL_FILE),
    ):
        if not field and (text := _kept(settings, file)) is not None:
            environment[f"{PREFIX}{name}"] = text
    return Settings.from_env(environment)


def api_url(settings: Settings) -> str:
    """The address of the API: that of `coursewire up` in the data directory, otherwise that of the
    settings.

    Raises StartError if the file cannot be read.
    """
    host = in_url(reachable(settings.host))
    return _kept(settings, API_URL_FILE) or f"http://{host}:{settings.port}"


def _kept(settings: Settings, file: str) -> str | None:
    path = settings.data_dir.expanduser() / file
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{path} is not text; restore it from a backup") from error


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
