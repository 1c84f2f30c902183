"""How the event log holds course records: compressed, and read back byte for byte."""

from __future__ import annotations

import threading
from typing import Final

import zstandard

# A stored body that begins with this byte is a Zstandard frame made with the dictionary below. All
# others are records as received: these are JSON objects, which begin otherwise.
_COMPRESSED: Final = b"\x01"
_LEVEL: Final = 1
# The fields of a course in the upstream's order: most of the bytes that all records share. Stored
# bodies can only be read with the dictionary that they were made with, so a change of this text
# needs a new first byte, and the old text for as long as events are kept.
_DICTIONARY: Final = (
    b'{"id":"","remote_id":"","provider_id":null,"origin_id":null,'
    b'"remote_created_at":"2024-01-01T00:00:00.000Z","remote_deleted_at":null,'
    b'"changed_at":"2024-01-01T00:00:00.000Z","remote_data":null,"custom_fields":{},'
    b'"integration_fields":[{"id":"","key":"","type":"DEFAULT","value":"","label":""},'
    b'{"id":"","key":"","type":"CUSTOM","value":null,"label":null}],'
    b'"provider":{"id":"","remote_id":"","name":""},"revisions":[{"id":"","remote_id":"",'
    b'"course_id":"","title":"","description":"","remote_url":"https://","status":"ACTIVE",'
    b'"remote_created_at":"2024-01-01T00:00:00.000Z","remote_deleted_at":null,'
    b'"changed_at":"2024-01-01T00:00:00.000Z","remote_data":null,"custom_fields":null,'
    b'"integration_fields":[],"skill_assignments":[{"skill":{"id":"","remote_id":"","name":""}},'
    b'{"skill":{"id":"","remote_id":"","name":""}}]}]}'
)


class _Codec(threading.local):
    """The compressor and the decompressor of one thread, which no other thread may use."""

    def __init__(self) -> None:
        dictionary = zstandard.ZstdCompressionDict(
            _DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        dictionary.precompute_compress(level=_LEVEL)
        self.compress = zstandard.ZstdCompressor(level=_LEVEL, dict_data=dictionary).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=dictionary).decompress


_codec = _Codec()


def compressed(record: bytes) -> bytes:
    """The form in which a record is stored, which is never larger than the record."""
    frame = _COMPRESSED + _codec.compress(record)
    return frame if len(frame) < len(record) else record


def decompressed(stored: bytes) -> bytes:
    """The record that is stored in this form. Raises zstandard.ZstdError if the frame is
    damaged."""
    if not stored.startswith(_COMPRESSED):
        return stored
    return _codec.decompress(memoryview(stored)[1:])
