"""Reads settings from files, as Docker and Kubernetes provide secrets."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

MAX_BYTES: Final = 65_536
SUFFIX: Final = "_FILE"


def read_secret_file(path: str) -> str:
    """The text of a file without the newline at its end. Raises ValueError with the file's fault.
    No message repeats what the file holds, nor a path that may be the secret itself, given in the
    wrong variable.
    """
    named = f"names {path}, which" if path.startswith(("/", "./", "../")) else "names a file that"
    try:
        # A pipe without a writer would block the start forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"{named} {_reason(error)}") from None
    except ValueError:  # a NUL byte
        raise ValueError("is not the path of a file") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{named} is a directory; give the path of the file in it")
        if not stat.S_ISREG(mode):
            raise ValueError(f"{named} is not a regular file; give the path of one")
        content = _content(descriptor)
    except OSError as error:
        raise ValueError(f"{named} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{named} has more than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{named} is not UTF-8 text; is it the right file?") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError(f"{named} is empty; write the secret into it")
    return text


def _content(descriptor: int) -> bytes:
    """The content of the file, up to one byte above the maximum."""
    content = b""
    while len(content) <= MAX_BYTES and (more := os.read(descriptor, MAX_BYTES + 1)):
        content += more
    return content


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "does not exist; mount the secret there, or correct the path"
        case errno.EACCES | errno.EPERM:
            return f"may not be read by user {os.geteuid()}; correct its owner or its mode"
        case _:
            return f"cannot be read: {error.strerror}"
