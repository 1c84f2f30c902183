"""Makes the commands that are declared: each runs one operation of the API and shows its answer."""

# ruff: noqa: PLC0415 - what only a call needs is imported there, so that --help is instant

from __future__ import annotations

from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem
from msgspec.structs import replace

from service.commands import options
from service.commands.resources.declarations import RESOURCES, Resource, Verb
from service.commands.resources.operations import Operation, operations
from service.commands.resources.parameters import Json, option

_LISTS: Final = {  # the lists that complete an argument
    "integration_id": "listIntegrations",
    "subscription_id": "listSubscriptions",
    "credential_id": "listCredentials",
    "key_id": "listAPIKeys",
}
_LIMIT: Final = click.Option(
    ["--limit"], type=click.IntRange(min=1), help="The maximum number of items, 100 if left out."
)
_ALL: Final = click.Option(["--all", "everything"], is_flag=True, help="Print all items.")
_FOLLOW: Final = click.Option(
    ["--follow", "-f"],
    is_flag=True,
    help=("Print new events, or those after --after, until Ctrl-C or --limit items."),
)
_DATA: Final = click.Option(
    ["--data", "sent"],
    type=Json(),
    help="The body as JSON, or @FILE; other options are added to it.",
)
_ETAG: Final = click.Option(
    ["--if-match", "etag"],
    metavar="ETAG",
    help="Change the resource only if it still has this `etag`.",
)
_OUTPUT: Final = (
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON on a terminal too."),
    click.Option(
        ["--get", "wanted"],
        metavar="FIELD",
        help=("Print only one field, such as id or labels.region; for a list, one value a line."),
    ),
)


class ResourceGroup(click.Group):
    """The commands of a resource; without a verb, its first one."""

    def __init__(self, name: str, resource: Resource, *, hidden: bool = False) -> None:
        examples = f"\b\nExamples:\n{resource.examples}" if resource.examples else None
        params = options.remote_options()
        self._first = next(iter(resource.verbs))
        first = Action(resource, resource.verbs[self._first])
        self._alone = not first.arguments  # whether the first verb can run without arguments
        text = resource.help + f"\n\nWithout a command, `{self._first}` is run." * self._alone
        super().__init__(name, help=text, epilog=examples, params=params, hidden=hidden)
        self._resource = resource

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their declaration."""
        return list(self._resource.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb."""
        verb = self._resource.verbs.get(cmd_name)
        return None if verb is None else Action(self._resource, verb).command(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Inserts the first verb if none is given."""
        own = {flag for one in self.params for flag in one.opts}
        at = 0
        while at < len(args) and (flag := args[at].partition("="))[0] in own:
            at += 1 if flag[1] else 2
        verbless = at == len(args) or (at < len(args) and args[at].startswith("-"))
        asks_help = at < len(args) and args[at] in ctx.help_option_names
        # During completion, the user may be about to type the verb.
        if self._alone and verbless and not asks_help and not ctx.resilient_parsing:
            args = [*args[:at], self._first, *args[at:]]
        return super().parse_args(ctx, args)


def groups() -> list[click.Command]:
    """The commands of all resources; `api-keys` is an alias of `api-key`."""
    plural = ResourceGroup("api-keys", RESOURCES["api-key"], hidden=True)
    return [*(ResourceGroup(name, one) for name, one in RESOURCES.items()), plural]


class Action(NamedTuple):
    """A verb of a resource."""

    resource: Resource
    verb: Verb

    @property
    def operation(self) -> Operation:
        """The API operation."""
        return operations()[self.verb.operation]

    @property
    def arguments(self) -> list[str]:
        """The parameters of the path, and declared arguments."""
        return [*self.operation.arguments, *filter(None, [self.verb.argument])]

    def command(self, name: str) -> click.Command:
        """The command of the verb."""
        operation, verb = self.operation, self.verb
        summary = verb.help or f"{operation.summary}."
        return click.Command(
            name,
            callback=click.pass_context(self.run),
            params=[
                *(click.Argument([one], shell_complete=_complete_id) for one in self.arguments),
                *self._sent(),
                *(one for one, wanted in self._own() if wanted),
                *_OUTPUT,
                *options.remote_options(taken={*operation.query, *operation.body}),
            ],
            help=verb.help or f"{summary}\n\n{operation.text}",
            short_help=summary,
        )

    def _sent(self) -> list[click.Parameter]:
        """The parameters of the query and of the body that are not fixed."""
        operation, verb = self.operation, self.verb
        fields = operation.query | ({} if verb.body else operation.body)
        required_first = sorted(fields.items(), key=lambda one: not one[1].required)
        return [
            option(
                name,
                replace(field, default=verb.query.get(name, field.default)),
                clears=operation.method == "PATCH",
            )
            for name, field in required_first
            if name not in ("limit", "wait", verb.argument)
        ]

    def _own(self) -> list[tuple[click.Option, object]]:
        """The options that are not the operation's own, and whether it has them."""
        operation, verb = self.operation, self.verb
        has_body = operation.body and not verb.body
        nullable = [name for name, field in operation.body.items() if field.nullable]
        clear = click.Option(
            ["--clear"],
            multiple=True,
            type=click.Choice(nullable),
            help="Send null for this field; may be repeated.",
        )
        return [
            (_LIMIT, operation.is_paged),
            (_ALL, operation.is_paged),
            (_FOLLOW, verb.follows),
            (_DATA, has_body),
            (clear, has_body and nullable and operation.method == "PATCH"),
            (_ETAG, operation.condition),
            (options.yes("; requires --if-match"), verb.ask and operation.condition == "required"),
            (options.yes(), verb.ask and operation.condition != "required"),
        ]

    def run(self, context: click.Context, **values: Any) -> None:
        """Sends the request and prints the response."""
        from service.commands.resources.call import Call, with_ids

        remote = options.connect(context)
        columns = (self.verb.columns or self.resource.columns).split()
        Call(remote, self.operation, self.verb, columns, with_ids(remote, values)).run()


def _complete_id(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The ids with this beginning, each with its name."""
    from service.domain.errors import CoursewireError

    if parameter.name not in _LISTS:
        return []
    try:
        page = options.connect(context).call(
            "GET", operations()[_LISTS[parameter.name]].path, query={"limit": 500}
        )
    except CoursewireError:
        return []
    return [
        CompletionItem(one["id"], help=one.get("name") or one.get("description"))
        for one in page["items"]
        if one["id"].startswith(incomplete)
    ]
