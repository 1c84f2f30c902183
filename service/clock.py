"""Reads this machine's clock; due times use the clock of Redis instead."""

from __future__ import annotations

import time


def now_ms() -> int:
    """The current time in epoch ms."""
    return time.time_ns() // 1_000_000
