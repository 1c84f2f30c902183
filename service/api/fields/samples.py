"""Ids and times of the examples in the documentation."""

from __future__ import annotations

from typing import Final

CREDENTIAL: Final = "cred_7h3k9w2m4x8q5v6t2z1y"
INTEGRATION: Final = "int_8k2m4x7q9v3t5z6w1y2h"
UPSTREAM: Final = "workday:HWUTwvyx2wLoSUHphiWVrp28"
SUBSCRIPTION: Final = "sub_4x8q5v6t2z1y7h3k9w2m"
REPLAY: Final = "rpl_9v3t5z6w1y2h8k2m4x7q"
KEY: Final = "key_2z1y7h3k9w2m4x8q5v6t"
POLL: Final = "poll_6w1y2h8k2m4x7q9v3t5z"
EVENT: Final = "evt_01kc8d1kqv5t00002h8k2m4x7q9v"
COURSE: Final = "26vafvWSRmbhNcxJYqjCzuJg"
EARLIER: Final = "2026-11-20T08:00:00.000Z"
AT: Final = "2026-11-23T09:30:00.000Z"
LATER: Final = "2026-11-23T09:30:01.250Z"
CURSOR: Final = "MTc5NTQyNDAwMTEyMy0w"
