"""Subscriptions and integrations that need attention: lines below a status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from service.commands.api_client import Remote, RemoteError
from service.commands.resources.call import pages
from service.commands.resources.rendering import cell, pick

_NAMED: Final = 20  # of each kind that are listed


def attention(remote: Remote) -> Iterator[tuple[str, str]]:
    """Labels and texts: the number of subscriptions by state, the parked and disabled ones, and
    integrations in error or review."""
    try:
        subscriptions = pages(remote, "/v1/subscriptions", {}, None)["items"]
        states = Counter(one["state"] for one in subscriptions)
        yield "subscriptions", ", ".join(f"{n} {state}" for state, n in states.items()) or "none"
        failing = [one for one in subscriptions if one["state"] in ("parked", "disabled")]
        yield from _named(failing, [_delivery(remote, one) for one in failing[:_NAMED]])
        query = {"state": ["error", "review"]}
        stopped = pages(remote, "/v1/integrations", query, None)["items"]
        yield from _named(stopped, [_poll(one) for one in stopped[:_NAMED]])
    except RemoteError as error:
        yield "attention", f"cannot be listed: {str(error).splitlines()[0]}"


def _named(found: list[Any], causes: list[tuple[Any, Any]]) -> Iterator[tuple[str, str]]:
    for one, (reason, since) in zip(found, causes, strict=False):
        name = one.get("name") or one.get("description") or one.get("url")
        yield (
            "attention",
            f"{one['id']} {cell(name)}: {one['state']}"
            + (f", {cell(reason)}" if reason else "")
            + (f", since {cell(since)}" if since else ""),
        )
    if len(found) > _NAMED:
        yield "attention", f"and {len(found) - _NAMED} more"


def _delivery(remote: Remote, subscription: dict[str, Any]) -> tuple[Any, Any]:
    """The failure of the delivery that is retried, and the time of its first attempt."""
    query = {"subscription_id": subscription["id"], "state": "retrying", "limit": 1}
    items = remote.call("GET", "/v1/deliveries", query=query)["items"] or [None]
    return (
        pick(items[0], "attempts.-1.answer") or subscription["disabled_reason"],
        pick(items[0], "attempts.0.at"),
    )


def _poll(integration: dict[str, Any]) -> tuple[Any, Any]:
    held = f"{integration['held']} changes held"
    error = [pick(integration, f"error.{name}") for name in ("message", "remedy")]
    return "; ".join(filter(None, error)) or held, pick(integration, "error.since")
