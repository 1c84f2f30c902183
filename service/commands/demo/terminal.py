"""The demo's output: lines in columns that fit the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from service.commands.console import fitted
from service.commands.demo.oracle import LoggedChange
from service.commands.listen.printing import STYLES
from service.commands.listen.push import Event, Push

_PLAIN_WIDTH: Final = 110  # columns if the output is not a terminal


class Terminal:
    """Prints changes and events in columns that fit the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        width = console.width if console.is_terminal else _PLAIN_WIDTH
        rest = max(24, width - 38)  # width of the other columns and the gaps
        self._title_width = rest * 20 // 43
        self._detail_width = rest - self._title_width

    def say(self, text: str = "", style: str = "") -> None:
        """One or more lines of text."""
        self._console.print(text, style=style, soft_wrap=True)

    def places(self, places: Mapping[str, str]) -> None:
        """Names and addresses; never wrapped, so that they can be copied."""
        for name, place in places.items():
            self._console.print(Text.assemble("  ", (f"{name:9}", "bold"), place), soft_wrap=True)
        self.say()

    def change(self, change: LoggedChange, title: str) -> None:
        """A change at the upstream."""
        self._line(change.at, "upstream", "blue", change.op, "", title, ", ".join(change.paths))

    def event(self, push: Push, event: Event, title: str, latency: float | None) -> None:
        """A verified event, `latency` seconds after the change it reports."""
        kind = event.type.rpartition(".")[2]
        data = event.data
        detail = ", ".join((*data.changed, *filter(None, (data.reason, data.evidence))))
        if push.times > 1:
            detail = f"duplicate; {detail}"
        after = "" if latency is None else f"{latency:.1f} s"
        self._line(push.at, "✓ event", "green", kind, STYLES.get(kind, ""), title, detail, after)

    def refused(self, push: Push) -> None:
        """A push that did not verify."""
        self._line(push.at, "✗ push", "bold red", "refused", "bold red", push.refusal or "", "")

    def _line(
        self,
        at: datetime,
        source: str,
        source_style: str,
        verb: str,
        verb_style: str,
        title: str,
        detail: str,
        after: str = "",
    ) -> None:
        line = Text.assemble(
            (f"{at.astimezone():%H:%M:%S} ", "dim"),
            (f"{source:8}  ", source_style),
            (f"{fitted(verb.removeprefix('revision_'), 8):8} ", verb_style),
            f"{fitted(title, self._title_width):{self._title_width}}  ",
            (f"{fitted(detail, self._detail_width):{self._detail_width}} ", "cyan"),
            (f"{after:>6}", "dim"),
        )
        line.rstrip()
        self._console.print(line, soft_wrap=True)
