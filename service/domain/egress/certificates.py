"""PEM texts: trusted authorities, and the certificate and key of a client."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PublicKeyTypes,
    )

MAX_PEM_LENGTH = 32_768  # characters of a client's certificate with its chain, and of its key
MAX_CHAIN = 10  # certificates
_SKEW_MS = 300_000  # tolerated lead of the issuer's clock

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_BEGIN = "-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    re.DOTALL,
)
_ENCRYPTED = re.compile(r"BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: *4, *ENCRYPTED")


class Unusable(ValueError):  # noqa: N818 - it is always caught
    """A PEM text cannot be used. `remedy` explains how to fix it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class ClientCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The client's part of handshakes: PEM of its certificate with its chain, and of its key, and
    the end of the certificate (epoch ms). `repr` leaves the key out.
    """

    certificate: str
    private_key: str
    not_after: int

    def __repr__(self) -> str:
        return "ClientCertificate(…)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("private_key", "…")]


class CertificateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The public part of a client's certificate. `serial` and `fingerprint` (SHA-256) are hex
    digits, `not_after` is epoch ms."""

    subject: str
    issuer: str
    serial: str
    fingerprint: str
    not_after: int


def read_authorities(content: bytes) -> str:
    """The certificates of a bundle, as PEM. Raises Unusable."""
    if not content.strip():
        raise Unusable("is empty", "write PEM certificates into it")
    text = content.decode("ascii", "replace")
    found = _CERTIFICATE.findall(text)
    if not found or len(found) != text.count(_BEGIN):
        what = "contains an incomplete certificate" if _BEGIN in text else "contains no certificate"
        raise Unusable(
            what,
            "give PEM, which begins with -----BEGIN CERTIFICATE-----; DER becomes PEM with "
            "`openssl x509 -inform der -in FILE`",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, pem in enumerate(found, 1):
        try:
            context.load_verify_locations(cadata=ssl.PEM_cert_to_DER_cert(pem))
        except (ValueError, ssl.SSLError):
            raise Unusable(
                f"has a broken certificate: number {number} of {len(found)}",
                "replace it, or remove it",
            ) from None
    return "\n".join(found) + "\n"


def read_client_certificate(certificate: str, now_ms: int) -> tuple[str, CertificateFacts]:
    """A chain without the text around its certificates, and the public part of its first
    certificate.

    Raises Unusable if any is broken, or the first is not valid at `now_ms`.
    """
    found = _CERTIFICATE.findall(certificate)
    if _PRIVATE_KEY_BEGIN.search(certificate):
        raise Unusable("contains a private key", "send the key as private_key alone")
    if not found or len(found) != certificate.count(_BEGIN):
        raise Unusable(
            "is not a certificate in PEM",
            "send the certificate, then its intermediates, each from -----BEGIN CERTIFICATE----- "
            "to -----END CERTIFICATE-----",
        )
    if len(found) > MAX_CHAIN:
        raise Unusable(f"holds {len(found)} certificates", f"send at most {MAX_CHAIN}")
    first, *_ = [_loaded(one, number) for number, one in enumerate(found, 1)]
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    if ends.timestamp() * 1000 <= now_ms:
        raise Unusable(f"expired at {ends:%Y-%m-%dT%H:%M:%SZ}", "send one that is valid")
    if begins.timestamp() * 1000 > now_ms + _SKEW_MS:
        raise Unusable(
            f"is not valid before {begins:%Y-%m-%dT%H:%M:%SZ}", "send one that is valid now"
        )
    facts = CertificateFacts(
        subject=first.subject.rfc4514_string(),
        issuer=first.issuer.rfc4514_string(),
        serial=f"{first.serial_number:x}",
        fingerprint=first.fingerprint(hashes.SHA256()).hex(),
        not_after=int(ends.timestamp() * 1000),
    )
    return "\n".join(found) + "\n", facts


def read_private_key(private_key: str) -> str:
    """A private key without the text around it. Raises Unusable unless it is exactly one, and not
    encrypted."""
    if _ENCRYPTED.search(private_key):
        raise Unusable(
            "is encrypted with a passphrase",
            "decrypt it with `openssl pkey -in FILE`; the service encrypts what it stores",
        )
    found = _PRIVATE_KEY.findall(private_key)
    if len(found) != 1 or len(_PRIVATE_KEY_BEGIN.findall(private_key)) != 1:
        raise Unusable(
            f"holds {len(found)} private keys" if found else "is not a private key in PEM",
            "send one key, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----",
        )
    try:
        serialization.load_pem_private_key(found[0].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unusable("is a broken private key", "send it unchanged") from None
    return f"{found[0]}\n"


def belongs(private_key: str, certificate: str) -> bool:
    """Whether the key belongs to a chain's first certificate; both were read before."""
    key = serialization.load_pem_private_key(private_key.encode(), password=None)
    return _public(key.public_key()) == _public(_loaded(certificate, 1).public_key())


def _loaded(pem: str, number: int) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        # The fields that are read later must be readable too.
        certificate.subject.rfc4514_string()
        certificate.issuer.rfc4514_string()
        _public(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable(f"is broken: certificate {number}", "send it unchanged") from None
    return certificate


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
