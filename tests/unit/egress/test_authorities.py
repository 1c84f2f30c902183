"""`SSL_CERT_FILE` and `SSL_CERT_DIR` that lead nowhere are one line at the start."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import certifi
import pytest

from service.certificate_authorities import authority_faults
from service.domain.errors import SettingsError
from service.settings import Settings

Make = Callable[[Path], object]


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def first_certificate() -> bytes:
    pem = Path(certifi.where()).read_bytes()
    begin = pem.index(b"-----BEGIN CERTIFICATE-----")
    end = b"-----END CERTIFICATE-----"
    return pem[begin : pem.index(end) + len(end)] + b"\n"


FILES: dict[str, tuple[Make, str]] = {
    "missing": (lambda path: None, "which does not exist"),
    "below a file": (lambda path: path.parent.joinpath("x").touch(), "which does not exist"),
    "directory": (lambda path: path.mkdir(), "which is a directory and not a file"),
    "empty": (lambda path: path.touch(), "which is empty"),
    "text": (lambda path: path.write_text("hello\n"), "no certificate in PEM form"),
    "binary": (lambda path: path.write_bytes(bytes(100)), "no certificate in PEM form"),
    "der": (
        lambda path: path.write_bytes(ssl.PEM_cert_to_DER_cert(first_certificate().decode())),
        "no certificate in PEM form",
    ),
    "cut off": (lambda path: path.write_bytes(first_certificate()[:500]), "no certificate in PEM"),
    "a key": (
        lambda path: path.write_text(
            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"
        ),
        "no certificate in PEM form",
    ),
    "dangling": (lambda path: path.symlink_to(path.parent / "gone"), "which does not exist"),
}


@pytest.mark.parametrize(("make", "named"), FILES.values(), ids=FILES)
def test_a_file_that_gives_no_certificate_is_refused(tmp_path, make, named):
    path = tmp_path / "ca.pem"
    make(path)
    message = refusal(SSL_CERT_FILE=str(path))
    assert message.startswith(f"SSL_CERT_FILE names '{path}', which ")
    assert named in message
    assert message.endswith("; correct it, or unset it for the public authorities")


DIRECTORIES: dict[str, tuple[Make, str]] = {
    "missing": (lambda path: None, "which does not exist"),
    "a file": (lambda path: path.touch(), "which is not a directory"),
    "empty": (lambda path: path.mkdir(), "no certificates under their hashes"),
    "not rehashed": (
        lambda path: (path.mkdir(), path.joinpath("ca.pem").write_bytes(first_certificate())),
        "no certificates under their hashes (use `openssl rehash`)",
    ),
}


@pytest.mark.parametrize(("make", "named"), DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_directory_that_gives_no_certificate_is_refused(tmp_path, make, named):
    path = tmp_path / "certs"
    make(path)
    message = refusal(SSL_CERT_DIR=str(path))
    assert message.startswith(f"SSL_CERT_DIR names '{path}', which ")
    assert named in message


def test_what_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    path.write_bytes(first_certificate())

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(
        "service.certificate_authorities.ssl.SSLContext.load_verify_locations", refuse
    )
    assert "may not read" in refusal(SSL_CERT_FILE=str(path))
    assert "may not read" in refusal(SSL_CERT_DIR=str(tmp_path))


def test_what_leads_to_certificates_is_taken(tmp_path):
    assert authority_faults({}) == []
    assert authority_faults({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) == []
    assert authority_faults({"SSL_CERT_FILE": certifi.where()}) == []
    # The directory is not looked at where there is a file, as by what opens connections.
    assert authority_faults({"SSL_CERT_FILE": certifi.where(), "SSL_CERT_DIR": "/no"}) == []
    tmp_path.joinpath("1a2b3c4d.0").write_bytes(first_certificate())
    assert authority_faults({"SSL_CERT_DIR": str(tmp_path)}) == []
    assert authority_faults({"SSL_CERT_DIR": f"/no:{tmp_path}"}) == []
    assert "/no:/nor" in refusal(SSL_CERT_DIR="/no:/nor")
