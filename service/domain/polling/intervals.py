"""The durations of polling: default intervals, backoff, patience, tolerated clock skew."""

from __future__ import annotations

DELTA_INTERVAL_SECONDS = 60
FULL_INTERVAL_SECONDS = 21_600
# a delta starts this long before the watermark, for rows that become visible late
DELTA_OVERLAP_MS = 600_000
DELTA_HORIZON_MS = 13 * 86_400_000  # tombstones are anonymised after 14 days: full poll instead
PROBE_SECONDS = 1_800  # between probes of an integration that needs attention
MODEL_PROBE_SECONDS = 86_400  # between probes of an integration without courses at the upstream
MAX_BACKOFF_SECONDS = 900
FULL_RETRY_SECONDS = 3_600  # from a stopped full poll to the next, while deltas continue
LEAST_WAIT_MS = 1_000  # minimum patience
FULL_JITTER = 0.05  # of the interval by which a full poll may be later than its slot
UNREADABLE_MS = 600_000  # while pages cannot be read, until an operator must act
SKEW_REPORTED_MS = 30_000  # between our clock and the upstream's
# Beyond this difference a `Date` of the upstream is not used. A clock set to local time is up to 14
# hours off, one that stopped yesterday a day. The bound keeps deltas far from DELTA_HORIZON_MS.
MAX_SKEW_MS = 25 * 3_600_000
CACHE_REPORTED_MS = 60_000  # age of an upstream response, as a cache reports it
