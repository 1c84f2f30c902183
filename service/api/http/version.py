"""The version of this installation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


def version() -> str:
    """The version of this installation."""
    try:
        return installed_version("coursewire")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
