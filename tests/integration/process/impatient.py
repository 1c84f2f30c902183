"""An API process that waits for less long, so that tests need not.

Run as a module, with the settings of `coursewire api`.
"""

from __future__ import annotations

from service.api.resources import event_stream as stream
from service.api.resources import events
from service.cli import coursewire

stream.HEARTBEAT_SECONDS = 0.3
events.LONGEST_WAIT_SECONDS = 1

if __name__ == "__main__":
    coursewire(["api"])
