"""An API process that can be fuzzed: nothing it is told to do leaves this machine.

Run as `python -m tests.contract.walled`, with the settings of `coursewire api`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket

from service.api.access import auth_throttle as failures
from service.cli import coursewire
from service.clients import address_guard as egress
from service.storage.events import log_follower as tail
from service.storage.security import idempotency as replies


def _refuse(_guard: egress.AddressGuard, address: egress.IPAddress) -> str | None:
    """The guard's judgement: everything but loopback is refused, whatever is allowed."""
    return None if address.is_loopback else "outside of this test"


async def _resolve(_self: egress.SystemResolver, host: str, port: int = 0, *_rest):
    """No name is looked up either: a name server would hear of it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            raise socket.gaierror(socket.EAI_NONAME, "no names in this test") from None
    return [
        egress.ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
    ]


_begin = replies.Replies.begin


async def _begin_each(self: replies.Replies, actor: str, key: str, same: bytes):
    """A fuzzer sends one Idempotency-Key with many requests, which would all get the same 422: here
    it is another key with each, and repeats a request only with the same one."""
    return await _begin(self, f"{actor} {hashlib.sha256(same).hexdigest()}", key, same)


replies.Replies.begin = _begin_each
egress.AddressGuard.reason = _refuse
egress.SystemResolver.resolve = _resolve
# A fuzzer sends wrong tokens by the hundred, and asks whether they get 401.
failures.MAX_FAILURES = 10**9
# Streams and long polls end with what there is instead of waiting for more.
tail.Listener.ended = property(lambda _listener: True)

if __name__ == "__main__":
    coursewire(["api"])
