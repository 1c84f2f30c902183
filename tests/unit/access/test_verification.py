from __future__ import annotations

import base64

import pytest

from service.domain.signatures.signing import (
    Signature,
    make_secret,
    read_public_key,
    read_secret,
    sign,
)
from service.domain.signatures.verification import fault

PRIVATE, OTHER = (make_secret(Signature.ED25519, bytes([byte]) * 32) for byte in (1, 2))
SHARED = make_secret(Signature.HMAC, bytes(32))
PUBLIC = read_public_key(read_secret(PRIVATE).public_key)
BODY, NOW = b'{"type":"x"}', 1_795_424_001


def signed(*secrets: str, at: int = NOW) -> dict[str, str]:
    return sign([read_secret(one) for one in secrets], "evt_1", at, BODY)


@pytest.mark.parametrize("secrets", [(PRIVATE,), (OTHER, PRIVATE), (SHARED, PRIVATE)])
def test_one_matching_signature_among_several_is_enough(secrets):
    assert fault(PUBLIC, signed(*secrets), BODY, NOW) is None


@pytest.mark.parametrize("late", [-300, 300])
def test_five_minutes_of_difference_are_tolerated(late):
    assert fault(PUBLIC, signed(PRIVATE), BODY, NOW + late) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (signed(OTHER), "no matching signature"),
        (signed(SHARED), "no matching signature"),
        (signed(PRIVATE) | {"webhook-id": "evt_2"}, "no matching signature"),
        (signed(PRIVATE) | {"webhook-timestamp": str(NOW + 1)}, "no matching signature"),
        (signed(PRIVATE) | {"webhook-signature": "v1a"}, "no matching signature"),
        (signed(PRIVATE) | {"webhook-signature": "v1a,é,  v1a,AAAA"}, "no matching signature"),
        (
            {name: text.replace("v1a,", "v1,") for name, text in signed(PRIVATE).items()},
            "no matching signature",
        ),
        (signed(PRIVATE, at=NOW - 301), "too old"),
        (signed(PRIVATE, at=NOW + 301), "too new"),
        (signed(PRIVATE) | {"webhook-timestamp": "-1"}, "no number of seconds"),
        (signed(PRIVATE) | {"webhook-timestamp": "²"}, "no number of seconds"),
        (signed(PRIVATE) | {"webhook-timestamp": "9" * 5000}, "no number of seconds"),
        (signed(PRIVATE) | {"webhook-signature": ""}, "missing required headers"),
        ({}, "missing required headers"),
    ],
)
def test_what_does_not_verify_has_a_reason(headers, reason):
    assert reason in fault(PUBLIC, headers, BODY, NOW)


def test_another_body_does_not_verify():
    assert fault(PUBLIC, signed(PRIVATE), BODY + b" ", NOW) == "no matching signature found"


def test_a_well_formed_signature_of_the_wrong_length_does_not_verify():
    short = signed(PRIVATE) | {"webhook-signature": "v1a," + base64.b64encode(b"x").decode()}

    assert fault(PUBLIC, short, BODY, NOW) == "no matching signature found"
