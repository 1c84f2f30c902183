"""`client_certificate` of subscriptions: checked at once, kept encrypted, never returned."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from service.storage.redis import keys
from tests.authority import Authority

URL = "https://receiver.example/hook"
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path, "of clients")


@pytest.fixture
def create(client):
    async def create(**fields):
        return await client.post("/v1/subscriptions", json={"url": URL, **fields})

    return create


async def test_what_is_shown_is_who_it_is_for_and_until_when(client, create, authority):
    issued = authority.issue(subject="coursewire")
    answer = await create(client_certificate=issued.fields)
    assert answer.status_code == 201, answer.text
    certificate = issued.certificate
    shown = {
        "subject": "CN=coursewire",
        "issuer": "CN=of clients",
        "serial": f"{certificate.serial_number:x}",
        "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}.000Z",
    }
    path = f"/v1/subscriptions/{answer.json()['id']}"
    listed = (await client.get("/v1/subscriptions")).json()["items"][0]
    for one in (answer.json(), (await client.get(path)).json(), listed):
        assert one["client_certificate"] == shown
    for text in (answer.text, (await client.get(path)).text):
        assert "BEGIN" not in text


async def test_it_is_sealed_kept_through_edits_replaced_and_removed(
    client, create, authority, services
):
    first, second = authority.issue(), authority.issue()
    made = (await create(client_certificate=first.fields)).json()
    path, name = f"/v1/subscriptions/{made['id']}", keys.subscription(made["id"])

    async def kept():
        fields = await services.redis.hgetall(name)
        for part in (first.pem, first.key_pem, second.pem, second.key_pem):
            line = part.splitlines()[2].encode()
            assert not any(line in value for value in fields.values())
        return await services.subscriptions.certificate(made["id"])

    assert (await kept()).private_key == first.key_pem
    edited = await client.patch(path, json={"description": "edited"})
    assert edited.json()["client_certificate"] == made["client_certificate"]
    assert (await kept()).certificate == first.pem
    replaced = await client.patch(path, json={"client_certificate": second.fields})
    assert replaced.json()["client_certificate"] != made["client_certificate"]
    assert (await kept()).private_key == second.key_pem
    await client.post(f"{path}/secret/rotate")
    assert (await kept()).private_key == second.key_pem
    removed = await client.patch(path, json={"client_certificate": None})
    assert removed.json()["client_certificate"] is None
    assert await kept() is None
    assert await services.redis.hget(name, "client_certificate") is None
    assert (await create(client_certificate=None)).json()["client_certificate"] is None
    oldest = await create(client_certificate=first.fields, **{"from": "oldest"})
    assert (await services.subscriptions.certificate(oldest.json()["id"])) is not None


async def test_test_events_show_it(client, create, authority, receiver):
    issued = authority.issue()
    made = (await create(client_certificate=issued.fields)).json()
    await client.post(f"/v1/subscriptions/{made['id']}/test")
    await client.patch(f"/v1/subscriptions/{made['id']}", json={"client_certificate": None})
    await client.post(f"/v1/subscriptions/{made['id']}/test")
    shown, none = receiver.certificates
    assert (shown.certificate, shown.private_key) == (issued.pem, issued.key_pem)
    assert none is None


async def test_what_people_paste_around_it_is_left_out(create, authority, services):
    issued = authority.issue()
    pasted = {
        "certificate": f"Bag Attributes\n  friendlyName: x\n{issued.pem}\n{authority.pem}\r\n",
        "private_key": "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
        "-----END EC PARAMETERS-----\n"
        + issued.key_as(serialization.PrivateFormat.TraditionalOpenSSL),
    }
    answer = await create(client_certificate=pasted)
    assert answer.status_code == 201, answer.text
    kept = await services.subscriptions.certificate(answer.json()["id"])
    assert kept.certificate == issued.pem + authority.pem
    assert kept.private_key.startswith("-----BEGIN EC PRIVATE KEY-----")
    windows = {name: pem.replace("\n", "\r\n") for name, pem in issued.fields.items()}
    assert (await create(client_certificate=windows)).status_code == 201


def _encrypted(issued) -> str:
    return issued.key_as(
        serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


def _old_encrypted(issued) -> str:
    return issued.key_as(
        serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"x")
    )


WRONG = {
    "missing key": (lambda i, a: {"certificate": i.pem}, "private_key", "is required"),
    "missing certificate": (lambda i, a: {"private_key": i.key_pem}, "certificate", "is required"),
    "null key": (lambda i, a: i.fields | {"private_key": None}, "private_key", "write-only"),
    "number": (lambda i, a: i.fields | {"certificate": 7}, "certificate", "text"),
    "too long": (lambda i, a: i.fields | {"certificate": i.pem * 99}, "certificate", "characters"),
    "unknown": (lambda i, a: i.fields | {"password": "x"}, "password", "not known"),
    "swapped": (
        lambda i, a: {"certificate": i.key_pem, "private_key": i.key_pem},
        "certificate",
        "private key",
    ),
    "key in the chain": (
        lambda i, a: i.fields | {"certificate": i.pem + i.key_pem},
        "certificate",
        "private key",
    ),
    "no PEM": (lambda i, a: i.fields | {"certificate": "MIIB"}, "certificate", "not a certificate"),
    "empty": (lambda i, a: i.fields | {"certificate": ""}, "certificate", "not a certificate"),
    "cut off": (
        lambda i, a: i.fields | {"certificate": i.pem[:-30]},
        "certificate",
        "not a certificate",
    ),
    "chain cut off": (
        lambda i, a: i.fields | {"certificate": i.pem + a.pem[:-30]},
        "certificate",
        "not a certificate",
    ),
    "broken": (
        lambda i, a: i.fields | {"certificate": i.pem.replace("MII", "MIA")},
        "certificate",
        "broken",
    ),
    "chain broken": (
        lambda i, a: i.fields | {"certificate": i.pem + a.pem.replace("MII", "MIA")},
        "certificate",
        "certificate 2",
    ),
    "chain too long": (
        lambda i, a: i.fields | {"certificate": i.pem * 11},
        "certificate",
        "11 certificates",
    ),
    "chain the wrong way round": (
        lambda i, a: i.fields | {"certificate": a.pem + i.pem},
        "private_key",
        "does not belong",
    ),
    "another's key": (
        lambda i, a: i.fields | {"private_key": a.key_pem},
        "private_key",
        "does not belong",
    ),
    "encrypted": (lambda i, a: i.fields | {"private_key": _encrypted(i)}, "private_key", "passph"),
    "encrypted as of old": (
        lambda i, a: i.fields | {"private_key": _old_encrypted(i)},
        "private_key",
        "passph",
    ),
    "public key": (
        lambda i, a: i.fields | {"private_key": i.pem},
        "private_key",
        "not a private key",
    ),
    "two keys": (
        lambda i, a: i.fields | {"private_key": i.key_pem + a.key_pem},
        "private_key",
        "2 private keys",
    ),
    "broken key": (
        lambda i, a: i.fields | {"private_key": i.key_pem.replace("MIG", "MIA")},
        "private_key",
        "broken",
    ),
    "expired": (
        lambda i, a: a.issue(valid=(-2 * HOUR, -HOUR)).fields,
        "certificate",
        "expired at",
    ),
    "not yet valid": (
        lambda i, a: a.issue(valid=(HOUR, 2 * HOUR)).fields,
        "certificate",
        "not valid before",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_one_that_cannot_be_used_is_refused_by_field_and_with_a_remedy(
    create, authority, refused, case
):
    make, field, said = WRONG[case]
    sent = make(authority.issue(), authority)
    answer = await create(client_certificate=sent)
    errors = refused(answer, f"client_certificate.{field}")
    assert said in errors[f"client_certificate.{field}"]["message"]
    for part in sent.values():
        if isinstance(part, str) and len(part) > 100:
            assert part.splitlines()[2] not in answer.text


@pytest.mark.parametrize("sent", ["text", ["list"], 7, True])
async def test_anything_but_an_object_is_refused(create, refused, sent):
    refused(await create(client_certificate=sent), "client_certificate")


async def test_a_key_that_tls_does_not_take_is_refused(create, authority, refused):
    """Of 1024 bits: OpenSSL's security level forbids it."""
    issued = authority.issue()
    weak = rsa.generate_private_key(65537, 1024)
    issued.certificate = authority.sign_for(weak.public_key())
    pem = weak.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    answer = await create(client_certificate={"certificate": issued.pem, "private_key": pem})
    errors = refused(answer, "client_certificate")
    assert "too small" in errors["client_certificate"]["message"]


async def test_it_is_for_https_alone(client, create, authority, refused):
    fields = authority.issue().fields
    plain = {"url": "http://receiver.example/hook"}
    errors = refused(await create(client_certificate=fields, **plain), "client_certificate")
    assert "http URL" in errors["client_certificate"]["message"]
    secure = (await create(client_certificate=fields)).json()
    unshown = (await create(**plain)).json()
    path = f"/v1/subscriptions/{secure['id']}"
    refused(await client.patch(path, json=plain), "client_certificate")
    refused(
        await client.patch(
            f"/v1/subscriptions/{unshown['id']}", json={"client_certificate": fields}
        ),
        "client_certificate",
    )
    assert (await client.get(path)).json()["url"] == URL
    both = await client.patch(path, json={**plain, "client_certificate": None})
    assert both.status_code == 200
    back = await client.patch(
        path, json={"url": "HTTPS://x.example/", "client_certificate": fields}
    )
    assert back.status_code == 200, back.text
