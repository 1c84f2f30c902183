"""Runs a command: sends its request, follows pages and events, and prints the response."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click
import httpx

from service.commands import options
from service.commands.api_client import STRANGER, Remote, RemoteError
from service.commands.resources import rendering
from service.commands.resources.declarations import Verb
from service.commands.resources.operations import Operation, operations
from service.commands.resources.parameters import given
from service.commands.resources.views import VIEWS
from service.domain.errors import CoursewireError

_PAGE = 500  # the maximum number of items of one response
_SAMPLE = 20  # items that are printed before a decision
_WAIT = 50  # seconds that one request waits for events
_NAMED = {  # commands where another name may replace an id: the list, the prefix of ids, the field
    "integration_id": ("listIntegrations", "int_", "external_id"),
    "subscription_id": ("listSubscriptions", "sub_", "description"),
}


class Call(NamedTuple):
    """One run of a command; `values` are the values of its options."""

    remote: Remote
    operation: Operation
    verb: Verb
    columns: Sequence[str]
    values: Mapping[str, Any]

    def run(self) -> None:
        """Sends the request and prints the response. Raises RemoteError."""
        operation, values = self.operation, self.values
        path = operation.path_of(values)
        enough = {} if self._as_json() or values["wanted"] else self.verb.table
        query = {**self.verb.query, **enough, **given(operation.query, values)}
        body = self._body()
        etag = self._confirmed(path) if self.verb.ask else values.get("etag")
        if values.get("follow"):
            self._follow(path, query)
        elif operation.is_paged:
            limit = None if values["everything"] else values["limit"] or 100
            self._show(pages(self.remote, path, query, limit))
        else:
            headers = {"if-match": etag} if etag else None
            answer = self.remote.send(
                operation.method, path, body, query=query or None, headers=headers
            )
            if self.verb.done:
                click.echo(f"{values[operation.arguments[-1]]} {self.verb.done}", err=True)
            else:
                document = _tagged(answer, operation.method)
                self._show(document)
                if any(document[name] != good for name, good in self.verb.good.items()):
                    click.get_current_context().exit(1)
                self._hint(document)

    def _body(self) -> dict[str, Any] | None:
        if not self.operation.body:
            return None
        fixed = self.verb.body
        body = {
            **(self.values.get("sent") or {}),
            **given({} if fixed else self.operation.body, self.values),
            **dict.fromkeys(self.values.get("clear", ())),
            **fixed,
        }
        for name, field in self.operation.body.items():
            if field.required and name not in body:
                raise click.MissingParameter(
                    param_hint=f"--{name.replace('_', '-')}", param_type="option"
                )
        if not body and self.operation.method == "PATCH":
            raise click.UsageError("There is nothing to change: give an option, see --help")
        return body

    def _confirmed(self, path: str) -> str | None:
        """Asks for confirmation, and returns the ETag that the request must match, None if any.

        It prints the resource first if the decision depends on it.
        """
        etag, yes = self.values.get("etag"), self.values["yes"]
        if self.operation.condition == "required" and etag is None:
            if yes or not options.on_terminal(sys.stdin):
                raise click.UsageError(
                    "Give --if-match with the `etag` that `show` printed: the decision "
                    "applies to exactly the changes that were shown"
                )
            shown = pages(self.remote, path, {}, _SAMPLE)
            etag = shown["etag"]
            self._show(shown, err=True)
        options.confirm(
            self.verb.ask.format(*map(self.values.get, self.operation.arguments)), yes=yes
        )
        return etag

    def _follow(self, path: str, query: dict[str, Any]) -> None:
        """Prints events as they happen."""
        start = {} if "since" in query else {"after": "latest"}
        query = {**start, **query, "order": "asc", "wait": _WAIT}
        left = self.values["limit"]
        while left is None or left > 0:
            query["limit"] = min(left or _PAGE, _PAGE)
            page = self.remote.call("GET", path, query=query)
            for item in page["items"]:
                self._show_line(item)
            left = None if left is None else left - len(page["items"])
            query["after"] = page["cursor"]

    def _show_line(self, item: Any) -> None:
        if wanted := self.values["wanted"]:
            try:
                (value,) = rendering.wanted([item], wanted)
            except KeyError:  # events of other types have it
                value = None
            click.echo(rendering.raw(value))
        elif self._as_json():
            rendering.show_json(item, sys.stdout, indent=None)
        else:
            rendering.show_line(item, self.columns, sys.stdout)
        sys.stdout.flush()

    def _show(self, document: Any, *, err: bool = False) -> None:
        """Prints a response in the requested form; a secret that only it contains gets a note."""
        out = sys.stderr if err else sys.stdout
        is_list = isinstance(document, dict) and "items" in document
        if (wanted := self.values["wanted"]) and not err:
            self._show_wanted(document, document["items"] if is_list else [document], wanted)
        elif self._as_json() and not err:
            rendering.show_json(document, out)
        elif self.verb.view:
            VIEWS[self.verb.view](document, self.columns, out)
        elif is_list:
            rendering.show_list(document, self.columns, out)
            self._hint(*document["items"])
        else:
            rendering.show_fields(document, out)
        if self.verb.once:
            click.echo(f"Store the {self.verb.once} now: it is not shown again.", err=True)
        if is_list and document.get("next") and not err and not self.values.get("limit"):
            click.echo(f"There are more: give --all, or --after {document['next']}", err=True)

    def _show_wanted(self, document: Any, items: list[Any], wanted: str) -> None:
        """Prints one field of each item. Raises UsageError if no item has it, and lists the known
        fields."""
        try:
            values = rendering.wanted(items, wanted)
        except KeyError as error:
            if self.operation.method != "GET":
                rendering.show_json(document, sys.stderr)
            raise click.UsageError(
                f"There is no field {wanted}. The fields are: {error.args[0]}"
            ) from None
        for value in values:
            click.echo(rendering.raw(value))

    def _hint(self, *items: Any) -> None:
        """Prints on a terminal the remedies for items, once for each subscription."""
        if (hint := self.verb.hint) is None or self._as_json() or self.values["wanted"]:
            return
        if hint.operation:
            about = operations()[hint.operation]
            items = (self.remote.call(about.method, about.path_of(self.values)),)
        found = (hint.text.format_map(one) for one in items if one[hint.path] == hint.value)
        for text in dict.fromkeys(found):
            click.echo(text, err=True)

    def _as_json(self) -> bool:
        return bool(self.values["as_json"]) or not options.on_terminal(sys.stdout)


def with_ids(remote: Remote, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with ids in place of other names. Raises CoursewireError."""
    found = dict(values)
    for name, (operation, prefix, field) in _NAMED.items():
        said = values.get(name)
        if not said or said.startswith(prefix):
            continue
        named_so = pages(remote, operations()[operation].path, {"name": said}, None)["items"]
        ids = [one["id"] for one in named_so if one[field] == said]
        if len(ids) != 1:
            raise CoursewireError(
                f"{said} is not an id ({prefix}...), and "
                + (f"{', '.join(ids)} have it as their {field}" if ids else f"nothing's {field}")
            )
        found[name] = ids[0]
    return found


def pages(remote: Remote, path: str, query: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """A list up to `limit` items, or to its end, as one page. Raises RemoteError."""
    items: list[Any] = []
    query = dict(query)
    while True:
        query["limit"] = _PAGE if limit is None else min(limit - len(items), _PAGE)
        page = _tagged(remote.send("GET", path, query=query), "GET")
        if "items" not in page:
            raise RemoteError(f"{remote.url}{path}: {STRANGER}")
        items += page["items"]
        query["after"] = page["next"]
        if page["next"] is None or (limit is not None and len(items) >= limit):
            return {**page, "items": items}


def _tagged(answer: httpx.Response, method: str) -> Any:
    """The JSON of a response; the ETag of a GET is added as `etag`."""
    document = answer.json()
    etag = answer.headers.get("etag") if method == "GET" else None
    return {**document, "etag": etag} if etag else document
