"""Checks files of certificates before they are used for verification."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CERT_FILE: Final = "SSL_CERT_FILE"
CERT_DIR: Final = "SSL_CERT_DIR"

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # how `openssl rehash` names certificates
_UNSET: Final = "correct it, or unset it for the public authorities"


def authority_faults(environ: Mapping[str, str]) -> list[str]:
    """Why `SSL_CERT_FILE` or `SSL_CERT_DIR`, if set, provide no certificates.

    Without certificates every TLS connection fails, and each error would blame the other side.
    """
    if file := environ.get(CERT_FILE):  # the directory is then ignored
        fault = certificates_fault(file)
        return [] if fault is None else [f"{CERT_FILE} names {file!r}, {fault}; {_UNSET}"]
    if directories := environ.get(CERT_DIR):
        fault = _directories_fault(directories)
        return [] if fault is None else [f"{CERT_DIR} names {directories!r}, {fault}; {_UNSET}"]
    return []


def certificates_fault(path: str) -> str | None:
    """Why no certificates can be read from a PEM file, None if they can."""
    found = Path(path)
    try:
        if found.is_dir():
            return "which is a directory and not a file"
        if not found.stat().st_size:
            return "which is empty"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "which contains no certificate in PEM form that can be read"
    except FileNotFoundError:
        return "which does not exist"
    except PermissionError:
        return f"which user {os.geteuid()} may not read"
    except (OSError, ValueError) as error:
        return f"which cannot be read ({getattr(error, 'strerror', None) or error})"
    return None


def _directories_fault(text: str) -> str | None:
    """Why a list of directories provides no certificate. One usable directory is enough."""
    faults = []
    for name in filter(None, text.split(os.pathsep)):
        directory = Path(name)
        try:
            if any(_HASHED.fullmatch(path.name) for path in directory.iterdir()):
                return None
        except FileNotFoundError:
            faults.append("which does not exist")
        except NotADirectoryError:
            faults.append("which is not a directory")
        except PermissionError:
            faults.append(f"which user {os.geteuid()} may not read")
        except OSError as error:
            faults.append(f"which cannot be read ({error.strerror})")
        else:
            faults.append(
                "which contains no certificates under their hashes (use `openssl rehash`)"
            )
    return faults[0] if faults else "which is not a directory"


def client_certificate_fault(certificate: str, key: str | None) -> str | None:
    """Why a client certificate cannot be used with its key, None if it can."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError:
        return "do not contain a certificate and its unencrypted key in PEM form"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return None
