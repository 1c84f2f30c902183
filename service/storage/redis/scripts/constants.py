"""Constants that scripts share with Python: a script gets those whose names it uses."""

from __future__ import annotations

from service.domain.courses import fingerprint
from service.domain.events import identifiers
from service.domain.review import guards
from service.storage.redis.scripts.statuses import Status

CONSTANTS: dict[str, str | bytes | int] = {
    **{status.name: status.value for status in Status},
    # Positions in packed values count from 1 in Lua, and their ends are inclusive.
    "FLAG": fingerprint.FLAG.start + 1,
    "LIVE": fingerprint.LIVE,
    "RAW_FIRST": fingerprint.RAW.start + 1,
    "RAW_LAST": fingerprint.RAW.stop,
    "RAW_BYTES": len(fingerprint.NO_RAW),
    "NO_RAW": fingerprint.NO_RAW,
    "SEQUENCE_FORMAT": f"%0{fingerprint.SEQUENCE.stop - fingerprint.SEQUENCE.start}.0f",
    "UPDATE": guards.UPDATE,
    "PATHS_FIRST": guards.PATHS_START + 1,
    "PATH_BYTES": guards.PATH_BYTES,
    "BACKFILLED": identifiers.BACKFILLED,
    "ALPHABET": identifiers.ALPHABET,
    "COUNTERS_SECONDS": 604_800,  # lifetime of counters after the last increment
    "TRIMMED_RECORDS": 100,  # attempt records beyond the limit before the oldest are removed
    "NETWORK_SECONDS": 60,  # lifetime of a receiver's last state, reached or unreachable
}
