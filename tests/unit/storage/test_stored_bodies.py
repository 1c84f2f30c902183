from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from service.storage.events.stored_bodies import compressed, decompressed

COURSE = msgspec.json.encode(
    {
        "id": "Hx1kiiQvaQit76a2ufTeAnYk",
        "remote_id": "1003",
        "remote_created_at": "2023-01-29T08:46:00.151Z",
        "remote_deleted_at": None,
        "changed_at": "2023-03-11T11:34:00.151Z",
        "custom_fields": {"cost_centre": "CC-235", "mandatory": False},
        "provider": {"id": "L78pAXEnmfQEXxXweriUguD4", "remote_id": "7", "name": "Academy"},
        "revisions": [
            {
                "id": "6cQkn72CzdEyFGSANjPpQ2cc",
                "course_id": "Hx1kiiQvaQit76a2ufTeAnYk",
                "title": "日本語ビジネスメール",
                "description": "Participants compare two ways to write a letter.",
                "remote_url": "https://learn.example/6cQkn72CzdEyFGSANjPpQ2cc",
                "status": "ACTIVE",
            }
        ],
    }
)
# Made by the first version of this code. Events outlive the version that stored them.
STORED = bytes.fromhex(
    "0128b52ffd603e01650900528f3932704b759cffff6f3208f8a2a088400e73d9a8dedaa410a1345aa5662a232a"
    "0b18c0341b68539206dbb4952ba2665ffaff971917864bc0735fe79687e0eccf41f26bfd9c74f9fae6507a5a82"
    "a287d20bb5fcec5fe759096aecdfb557679f688cdb63dc17e3eec06c89717360f6c4b82d323e362a321814196b"
    "9feb9b3c2050090504a2a545548f8429978dc4ee35b794040d541c146efe30b364d6b575d8caa84f221d5c1ee4"
    "7c9ba6983ded1af66e02cc487d9aaa9ad3fcacf1db060d7a764275a214a3b4a94e53698446d024713081a756c7"
    "a194054c3db6551e8f247d2f87b8eea5508b411800610501a426d49d2201900d0c5d28a6b79317c85608a826ba"
    "c14cd42d2690db262c2bb38db012894a14b444480b585f60032cc3ca590b599b4bd000560347b9ca0a"
)


def test_a_record_is_read_back_byte_for_byte_and_takes_less() -> None:
    stored = compressed(COURSE)
    assert decompressed(stored) == COURSE
    assert len(stored) < len(COURSE) * 2 / 3


def test_records_that_were_stored_before_are_read() -> None:
    assert decompressed(STORED) == COURSE
    assert decompressed(COURSE) == COURSE  # as it was received
    assert decompressed(b"") == b""


@given(st.binary(max_size=3_000).map(b"{".__add__))
def test_no_record_is_stored_in_more_bytes_than_it_has(record: bytes) -> None:
    stored = compressed(record)
    assert decompressed(stored) == record
    assert len(stored) <= len(record)


def test_threads_compress_at_the_same_time() -> None:
    together = threading.Barrier(4)

    def run(number: int) -> bool:
        record = COURSE.replace(b"1003", b"%d" % number) * 50
        together.wait(10)
        return all(decompressed(compressed(record)) == record for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


def test_a_damaged_frame_is_an_error() -> None:
    with pytest.raises(zstandard.ZstdError):
        decompressed(compressed(COURSE)[:-9])
