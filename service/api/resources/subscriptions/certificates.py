"""Client certificates as subscribers send them: read, and refused with a reason."""

from __future__ import annotations

import ssl
from typing import Annotated, Any

from msgspec import Meta

from service.api.fields.refusals import Refusal
from service.clients.tls import load_certificate
from service.clock import now_ms
from service.domain.egress.certificates import (
    MAX_PEM_LENGTH,
    CertificateFacts,
    ClientCertificate,
    Unusable,
    belongs,
    read_client_certificate,
    read_private_key,
)

CERTIFICATE, KEY = "certificate", "private_key"
_SEND_BOTH = "send an object with certificate and private_key, both PEM, or null to remove it"


def _read(value: Any) -> tuple[ClientCertificate, CertificateFacts]:
    if not isinstance(value, dict):
        raise Refusal("must be an object", _SEND_BOTH)
    found = []
    for name in value:
        if name not in (CERTIFICATE, KEY):
            found += Refusal("is not known", _SEND_BOTH).below(f".{name[:64]}")
    read: dict[str, Any] = {}
    for name in (CERTIFICATE, KEY):
        try:
            pem = _text(value, name)
            read[name] = (
                read_client_certificate(pem, now_ms())
                if name == CERTIFICATE
                else read_private_key(pem)
            )
        except Unusable as error:
            found += Refusal(str(error), error.remedy).below(f".{name}")
        except Refusal as refusal:
            found += refusal.below(f".{name}")
    if found:
        raise Refusal.of(found)
    (chain, facts), key = read[CERTIFICATE], read[KEY]
    if not belongs(key, chain):
        found = Refusal(
            "does not belong to the certificate",
            "send the key that the certificate was issued for; that certificate comes first",
        ).below(f".{KEY}")
        raise Refusal.of(found)
    certificate = ClientCertificate(certificate=chain, private_key=key, not_after=facts.not_after)
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)
    except Unusable as error:
        raise Refusal(str(error), error.remedy) from None
    return certificate, facts


def _text(value: dict[str, Any], name: str) -> str:
    if name not in value:
        raise Refusal("is required", _SEND_BOTH)
    content = value[name]
    if content is None:
        raise Refusal("has no value; it is write-only", _SEND_BOTH)
    if not isinstance(content, str):
        raise Refusal("must be text", _SEND_BOTH)
    if len(content) > MAX_PEM_LENGTH:
        raise Refusal(f"has {len(content)} characters", f"send at most {MAX_PEM_LENGTH}")
    return content


_PEM = {"type": "string", "minLength": 1, "maxLength": MAX_PEM_LENGTH}
_SCHEMA = {
    "type": "object",
    "properties": {CERTIFICATE: _PEM, KEY: _PEM},
    "required": [CERTIFICATE, KEY],
    "additionalProperties": False,
}
GivenCertificate = Annotated[
    tuple[ClientCertificate, CertificateFacts],
    Meta(extra_json_schema=_SCHEMA, extra={"read": _read}),
]  # a certificate with its chain and its private key, and the certificate's properties
