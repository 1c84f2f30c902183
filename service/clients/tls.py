"""TLS of outgoing connections: trusted authorities, and client certificates."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from service.domain.egress.certificates import ClientCertificate, Unusable, read_authorities
from service.domain.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

# contexts kept: each takes about 10 ms and 1 MB, because it holds all authorities
MAX_CONTEXTS: Final = 128


def make_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """A context that verifies servers against the public authorities and those in `ca_file`.

    The public ones are certifi's, or those of `SSL_CERT_FILE` or `SSL_CERT_DIR`. Raises
    SettingsError if the file has become unusable since the start.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    # Python 3.13 sets this by itself: it trusts each certificate that the operator lists, even an
    # intermediate one. Python 3.13 also sets VERIFY_X509_STRICT. This code leaves that flag alone:
    # clearing it would weaken 3.13, and setting it would break set-ups that work on 3.11 and 3.12.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca_file is not None:
        try:
            context.load_verify_locations(cadata=read_authorities(ca_file.read_bytes()))
        except (OSError, Unusable) as error:
            raise SettingsError(f"COURSEWIRE_CA_FILE can no longer be used: {error}") from error
    return context


class ClientContexts:
    """One context for each client certificate: connections are pooled by context, so a connection
    that was made with one certificate is not used with another."""

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._made: OrderedDict[ClientCertificate, ssl.SSLContext] = OrderedDict()

    def get(self, certificate: ClientCertificate) -> ssl.SSLContext:
        """The context that presents this certificate. Raises Unusable."""
        context = self._made.get(certificate)
        if context is None:
            context = make_context(self._ca_file)
            load_certificate(context, certificate)
            self._made[certificate] = context
            if len(self._made) > MAX_CONTEXTS:
                self._made.popitem(last=False)
        self._made.move_to_end(certificate)
        return context


def load_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    """Makes a context present this certificate. Raises Unusable if OpenSSL refuses it."""
    with _as_file(certificate.certificate + certificate.private_key) as path:
        try:
            context.load_cert_chain(path, password=_no_passphrase)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "it cannot be read"
            raise Unusable(
                f"cannot be used for TLS: {reason.replace('_', ' ').lower()}",
                "send another certificate and key",
            ) from None


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted")  # otherwise OpenSSL would ask on the terminal


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path to read `text` from, because ssl reads keys only from files; if the system supports
    it, the file is in memory and not on a disk."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112 - no Path is needed
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile("w") as file:  # readable by its owner alone
            file.write(text)
            file.flush()
            yield file.name
