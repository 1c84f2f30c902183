"""Certificates for tests, from an authority of their own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from service.domain.egress.certificates import ClientCertificate


class Issued:
    """A certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key_as(serialization.PrivateFormat.PKCS8)

    def key_as(
        self,
        form: serialization.PrivateFormat,
        encryption: serialization.KeySerializationEncryption | None = None,
    ) -> str:
        encryption = encryption or serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()

    @property
    def client_certificate(self) -> ClientCertificate:
        """As it is shown to receivers."""
        return ClientCertificate(
            certificate=self.pem,
            private_key=self.key_pem,
            not_after=int(self.certificate.not_valid_after_utc.timestamp() * 1000),
        )

    @property
    def fields(self) -> dict[str, str]:
        """As a subscription is given it."""
        return {"certificate": self.pem, "private_key": self.key_pem}


class Authority(Issued):
    """Issues certificates; `file` holds its own. It is as RFC 5280 wants it, unless `plain`: then
    it lacks what Python 3.13 demands."""

    def __init__(
        self, directory: Path, name: str = "test authority", *, plain: bool = False
    ) -> None:
        self._plain = plain
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = _builder(subject, subject, key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=not plain
        )
        if not plain:
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        super().__init__(builder.sign(key, hashes.SHA256()), key)
        self.file = directory / f"{name.replace(' ', '-')}.pem"
        self.file.write_text(self.pem)

    def issue(
        self,
        *names: str,
        subject: str = "test",
        valid: tuple[dt.timedelta, dt.timedelta] = (dt.timedelta(hours=-1), dt.timedelta(hours=1)),
    ) -> Issued:
        """A certificate for host names and addresses, or for a client if there are none."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(subject), self.certificate.subject, key.public_key(), valid)
        if not self._plain:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), False
            )
        return Issued(builder.sign(self.key, hashes.SHA256()), key)

    def sign_for(self, key: rsa.RSAPublicKey) -> x509.Certificate:
        """A certificate for a key of somebody else's."""
        return _builder(_name("rsa"), self.certificate.subject, key).sign(self.key, hashes.SHA256())

    def server(self, *names: str, demands: Issued | None = None) -> ssl.SSLContext:
        """A server's context for these names; it `demands` clients of an authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self.issue(*names)
        path = self.file.with_suffix(".server.pem")
        path.write_text(issued.pem + issued.key_pem)
        context.load_cert_chain(path)
        if demands is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=demands.pem)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    valid: tuple[dt.timedelta, dt.timedelta] = (dt.timedelta(hours=-1), dt.timedelta(hours=1)),
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )
