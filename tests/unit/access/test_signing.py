from __future__ import annotations

import base64
import re
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from service.domain.signatures.signing import (
    Signature,
    Signer,
    SigningSecret,
    in_force,
    make_secret,
    read_public_key,
    read_secret,
    rotated,
    sign,
    signature_of,
)

SECRET, OLD_SECRET = (
    make_secret(Signature.HMAC, bytes(range(start, start + 32))) for start in (0, 32)
)
PRIVATE = make_secret(Signature.ED25519, bytes(range(32)))
BODY = '{"type":"course.updated","data":{"course_id":"名前 🎓"}}'.encode()
MESSAGE_ID = "evt_01m83sr733000726vafvwsrmbh"


def encoded(prefix: str, content: bytes) -> str:
    return prefix + base64.b64encode(content).decode()


def headers(*secrets: str, body: bytes = BODY, timestamp: int | None = None) -> dict[str, str]:
    at = int(time.time()) if timestamp is None else timestamp
    return sign([read_secret(secret) for secret in secrets], MESSAGE_ID, at, body)


def signatures(*secrets: str) -> list[str]:
    return headers(*secrets, timestamp=1)["webhook-signature"].split(" ")


# --- v1 ---------------------------------------------------------------------------------------


def test_the_official_library_accepts_what_is_signed():
    verified = Webhook(SECRET).verify(BODY, headers(SECRET))

    assert verified["data"]["course_id"] == "名前 🎓"


@pytest.mark.parametrize("others", [(OLD_SECRET,), (PRIVATE,), (PRIVATE, OLD_SECRET)])
def test_while_rotated_secrets_overlap_the_official_library_accepts_either(others):
    for secret in (SECRET, *(one for one in others if one != PRIVATE)):
        Webhook(secret).verify(BODY, headers(SECRET, *others))
        Webhook(secret).verify(BODY, headers(*others, SECRET))


def test_the_newest_secret_signs_first():
    assert signatures(SECRET, OLD_SECRET) == [*signatures(SECRET), *signatures(OLD_SECRET)]


@pytest.mark.parametrize("field", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_the_official_library_refuses_altered_headers(field):
    signed = headers(SECRET)
    other = sign([read_secret(OLD_SECRET)], "evt_other", int(time.time()) - 10, BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, signed | {field: other[field]})


def test_the_official_library_refuses_an_altered_body_and_a_foreign_secret():
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + b" ", headers(SECRET))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(BODY, headers(SECRET))


def test_an_old_attempt_is_refused_so_each_attempt_carries_its_own_time():
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers(SECRET, timestamp=int(time.time()) - 600))


def test_headers_are_those_of_the_specification():
    """The vector published with the specification's reference libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    assert sign(
        [read_secret(secret)],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
    ) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


# --- v1a --------------------------------------------------------------------------------------


def test_a_v1a_signature_verifies_under_the_public_key_alone():
    (signature,) = signatures(PRIVATE)
    version, _, text = signature.partition(",")
    public = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(read_secret(PRIVATE).public_key.removeprefix("whpk_"))
    )
    content = f"{MESSAGE_ID}.1.".encode() + BODY

    public.verify(base64.b64decode(text), content)
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(text), content + b" ")
    assert version == "v1a"


def test_keys_and_signatures_are_those_of_the_ed25519_standard():
    """Test 3 of RFC 8032, section 7.1."""
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    public = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    signature = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    key = read_secret(encoded("whsk_", seed))

    assert key.public_key == encoded("whpk_", public)
    assert key.secret == make_secret(Signature.ED25519, seed) == encoded("whsk_", seed + public)
    assert key.sign(b"\xaf\x82") == "v1a," + base64.b64encode(signature).decode()


def test_a_private_key_is_read_with_or_without_its_public_half():
    seed = base64.b64decode(PRIVATE.removeprefix("whsk_"))[:32]

    assert signatures(encoded("whsk_", seed)) == signatures(PRIVATE)


# --- rotation ---------------------------------------------------------------------------------

NOW = 1_795_424_001_123
CURRENT = SigningSecret(SECRET)


def test_the_secret_before_signs_until_the_overlap_ends():
    secrets = rotated([CURRENT], "new", 60_000, NOW)

    assert secrets == [SigningSecret("new"), SigningSecret(SECRET, NOW + 60_000)]
    assert in_force(secrets, NOW + 59_999) == secrets
    assert in_force(secrets, NOW + 60_000) == secrets[:1]


def test_without_an_overlap_nothing_but_the_new_secret_is_left():
    secrets = rotated([CURRENT], "second", 60_000, NOW)

    assert rotated(secrets, "third", 0, NOW + 1) == [SigningSecret("third")]


def test_an_overlap_prolongs_no_earlier_one_but_may_shorten_it():
    secrets = rotated([CURRENT], "second", 60_000, NOW)

    (*_, prolonged) = rotated(secrets, "third", 600_000, NOW)
    (*_, shortened) = rotated(secrets, "third", 5, NOW)
    assert prolonged == SigningSecret(SECRET, NOW + 60_000)
    assert shortened == SigningSecret(SECRET, NOW + 5)


def test_a_rotation_drops_what_has_expired():
    secrets = rotated([CURRENT], "second", 1_000, NOW)

    assert rotated(secrets, "third", 9_000, NOW + 1_000) == [
        SigningSecret("third"),
        SigningSecret("second", NOW + 10_000),
    ]


def test_a_signer_leaves_out_expired_secrets_by_the_time_of_the_attempt():
    signer = Signer(rotated([CURRENT], PRIVATE, 5_000, NOW))

    def versions(at: int) -> list[str]:
        signed = signer.headers(MESSAGE_ID, at, BODY)
        assert signed["webhook-timestamp"] == str(at // 1000)
        return [one.partition(",")[0] for one in signed["webhook-signature"].split(" ")]

    assert versions(NOW) == versions(NOW + 4_999) == ["v1a", "v1"]
    assert versions(NOW + 5_000) == ["v1a"]


# --- what is no secret ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [24, 32, 64])
def test_hmac_secrets_of_every_allowed_length_are_read(length):
    secret = encoded("whsec_", b"k" * length)

    Webhook(secret).verify(BODY, headers(secret))
    assert signature_of(secret) is read_secret(secret).signature is Signature.HMAC


COPIED = {
    "as it is": lambda one: one,
    "without padding": lambda one: one.rstrip("="),
    "with more padding": lambda one: f"{one}==",
    "a line break behind": lambda one: f"{one}\r\n",
    "a blank before": lambda one: f" \t{one}",
    "a no-break space behind": lambda one: f"{one}\u00a0",
    "zero-width spaces": lambda one: f"\u200b{one}\u200b",
    "a byte order mark": lambda one: f"\ufeff{one}",
    "marks of direction": lambda one: f"\u202a{one}\u202c",
    "double quotes": lambda one: f'"{one}"',
    "single quotes": lambda one: f"'{one}'",
    "typographic quotes": lambda one: f"“{one}”",
    "backticks": lambda one: f"`{one}`",
    "a version": lambda one: f"v1,{one}",
    "another version": lambda one: f"v1a,{one}",
    "the prefix twice": lambda one: one[: one.index("_") + 1] + one,
    "URL-safe": lambda one: one[:6] + one[6:].replace("+", "-").replace("/", "_"),
    "all at once": lambda one: f" '\ufeffv1,{one.rstrip('=')}\n' \n",
}
# Of bytes whose base64 has both characters that differ in its URL-safe form, and padding.
UNEVEN = bytes(range(0xE0, 0x100)) * 2


@pytest.mark.parametrize("copied", COPIED.values(), ids=COPIED)
@pytest.mark.parametrize("length", [24, 25, 26, 32, 64])
def test_a_secret_is_read_as_it_is_pasted(copied, length):
    secret = encoded("whsec_", UNEVEN[-length:])

    assert read_secret(copied(secret)).secret == secret


@pytest.mark.parametrize("copied", COPIED.values(), ids=COPIED)
def test_private_and_public_keys_are_read_as_they_are_pasted(copied):
    seed = encoded("whsk_", bytes(range(0xE0, 0x100)))
    private = read_secret(seed)

    assert read_secret(copied(seed)).secret == private.secret
    assert read_secret(copied(private.secret)).secret == private.secret
    public = read_public_key(copied(private.public_key))
    assert public.public_bytes_raw() == private.public_half


@pytest.mark.parametrize(
    ("pasted", "named"),
    [
        (SECRET[:20] + "\n" + SECRET[20:], "character 21 is a line break"),
        (SECRET[:20] + " " + SECRET[20:], "character 21 is a space"),
        ("  " + SECRET[:20] + "\t" + SECRET[20:], "character 23 is a tab"),
        ('"v1,' + SECRET[:20] + "\u200b" + SECRET[20:] + '"', "character 25 is U+200B (ZERO WIDTH"),
        (SECRET[:20] + "…", "character 21 is U+2026 (HORIZONTAL ELLIPSIS)"),
        (SECRET + ",", f"character {len(SECRET) + 1} is ','"),
        (SECRET + "\\n", f"character {len(SECRET) + 1} is '\\'"),
        (SECRET.replace("=", "%3D"), f"character {len(SECRET.rstrip('=')) + 1} is '%'"),
        (SECRET[:20] + "=" + SECRET[20:], "character 21 is '='"),
        (f'"{SECRET}', "'whsec_' comes at character 2"),
        (f"WEBHOOK_SECRET={SECRET}", "'whsec_' comes at character 16"),
        (encoded("whsec_", bytes(24)) + "A", "33 characters of base64, which cannot be complete"),
    ],
)
def test_what_is_wrong_with_a_pasted_secret_is_named_with_its_place(pasted, named):
    with pytest.raises(ValueError, match=re.escape(named)) as raised:
        read_secret(pasted)

    assert SECRET[6:20] not in str(raised.value)


def test_the_prefix_says_how_a_secret_signs():
    assert signature_of(PRIVATE) is read_secret(PRIVATE).signature is Signature.ED25519


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("", "starts with 'whsec_' or 'whsk_'"),
        (SECRET.removeprefix("whsec_"), "starts with 'whsec_' or 'whsk_'"),
        (SECRET.upper(), "starts with 'whsec_' or 'whsk_'"),
        ("whsec_not base64 at all!", "comes base64, but character 10 is a space"),
        ("whsec_äöü", r"character 7 is U\+00E4 \(LATIN SMALL LETTER A WITH DIAERESIS\)"),
        ("whsec_", "24 to 64 bytes, this one to 0"),
        (encoded("whsec_", b"k" * 23), "24 to 64 bytes, this one to 23"),
        (encoded("whsec_", b"k" * 65), "24 to 64 bytes, this one to 65"),
        ("whsk_äöü", "comes base64, but character 6 is U"),
        ("whsk_", "32 bytes, or 64 with its public half, this one to 0"),
        (encoded("whsk_", b"k" * 33), "32 bytes, or 64 with its public half, this one to 33"),
        (encoded("whsk_", b"k" * 64), "does not match its seed"),
        (encoded("whpk_", b"k" * 32), "cannot sign"),
    ],
)
def test_an_unusable_secret_says_what_is_wrong_with_it(secret, problem):
    with pytest.raises(ValueError, match=problem) as raised:
        read_secret(secret)

    assert len(secret) < 10 or secret not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SECRET, "starts with 'whpk_'"),
        ("whpk_%", "comes base64, but character 6 is '%'"),
        (encoded("whpk_", b"k" * 31), "32 bytes, this one to 31"),
    ],
)
def test_an_unusable_public_key_says_what_is_wrong_with_it(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_public_key(text)
