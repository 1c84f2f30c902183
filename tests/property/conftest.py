"""How long property tests search: the same bounded examples every time, or many new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# How long examples take to make says how busy the machine is, not whether a test is sound.
BUSY = (HealthCheck.too_slow,)

settings.register_profile(
    "ci", max_examples=40, deadline=None, derandomize=True, suppress_health_check=BUSY
)
settings.register_profile(
    "thorough", max_examples=2_000, deadline=None, print_blob=True, suppress_health_check=BUSY
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
