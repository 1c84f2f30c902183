"""How often a long-running process looks for garbage."""

from __future__ import annotations

import gc
from typing import Final

# Net allocations between two runs of the garbage collector. At 10,000, a worker with a thousand
# turns spends a third of its time on looking for garbage among objects that are in use.
IN_API: Final = 10_000
IN_WORKER: Final = 200_000


def collect_less(allocations: int) -> None:
    """Excludes the objects that exist at the start from garbage collection, and runs it after so
    many net allocations.

    With Python's default of 700, a request to the API that reads 10,000 records waits for
    collections of the whole application.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(allocations, *gc.get_threshold()[1:])
