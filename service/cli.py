"""The `coursewire` command: reads the settings, then runs one part or all of them."""

# ruff: noqa: PLC0415 - parts are imported inside their commands, so that --help is instant

from __future__ import annotations

import os
import sys
from typing import Literal, NoReturn

import click
from click.core import ParameterSource

from service.commands import options
from service.commands.backup.commands import backup, restore
from service.commands.manifest.apply_command import apply
from service.commands.resources.resource_commands import groups
from service.sandbox.config import SandboxConfig

EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_INTERRUPTED = 130  # after Ctrl-C, as in shells

_SANDBOX = SandboxConfig()  # the defaults


_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_TOUR = """\b
From the first start to the first event:
coursewire up                          # in a terminal of its own
coursewire integrations create ...     # register a learning system
coursewire subscriptions create ...    # register a receiver of its events
coursewire subscriptions test sub_...  # try the receiver
coursewire events --follow             # watch what is detected
coursewire deliveries list ...         # show every attempt and its outcome
"""


class Root(click.Group):
    """Commands in the order in which they are added, in two sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands that call the API, which share their options, then the others."""
        shown = {name: one for name, one in self.commands.items() if not one.hidden}
        asking = [name for name in shown if options.asks_api(shown[name])]
        others = [name for name in shown if name not in asking]
        limit = formatter.width - 6 - max(map(len, shown))
        for title, names in (("Over the API", asking), ("On this machine", others)):
            with formatter.section(title):
                formatter.write_dl([(one, shown[one].get_short_help_str(limit)) for one in names])


@click.group(cls=Root, context_settings=_HELP, epilog=_TOUR)
@click.version_option(package_name="coursewire", prog_name="coursewire")
@options.remote
def coursewire() -> None:
    """Signed webhooks for course changes in learning systems that cannot send any.

    Settings are environment variables that begin with COURSEWIRE_; docs/settings.md lists them.
    For help on a command, add --help to it.
    """


@coursewire.command()
def up() -> None:
    """Run the whole service: API, worker, scheduler, and Valkey unless a Redis is named."""
    from service.local.supervisor.up import up as run
    from service.settings import Settings

    run(Settings.from_env(os.environ))


@coursewire.command()
def api() -> None:
    """Run the HTTP API alone."""
    import asyncio

    from service import logs
    from service.api.http.server import serve
    from service.app import create_app
    from service.settings import Settings
    from service.storage.redis.server_info import check_server

    settings = Settings.from_env(os.environ)
    settings.require("REDIS_URL", "ADMIN_TOKEN", "ENCRYPTION_KEYS")
    logs.configure(settings.log_format, settings.log_level, "api")
    asyncio.run(check_server(settings.require_redis_url()))
    app = create_app(settings)
    logs.get_logger("api").info("API starting", host=settings.host, port=settings.port)
    serve(app, settings)


for _group in groups():
    coursewire.add_command(_group)


coursewire.add_command(apply)
coursewire.add_command(backup)
coursewire.add_command(restore)

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


@coursewire.command(context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run a worker, which polls and delivers.

    ARGUMENTS are the worker's own; try --help.
    """
    _become("workers.worker", arguments)


@coursewire.command(context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def scheduler(arguments: tuple[str, ...]) -> None:
    """Run a scheduler, which enqueues due work.

    ARGUMENTS are its own; try --help.
    """
    _become("workers.scheduler", arguments)


def _become(module: str, arguments: tuple[str, ...]) -> NoReturn:
    os.execv(  # noqa: S606 - our own modules, by the interpreter that runs us
        sys.executable, [sys.executable, "-m", module, *arguments]
    )


@coursewire.command()
@options.HOST
@options.port(_SANDBOX.port)
@click.option(
    "--api-key",
    default=_SANDBOX.api_key,
    show_default=True,
    help="The bearer token that it requires.",
)
@click.option(
    "--integration",
    "integrations",
    multiple=True,
    default=_SANDBOX.integrations,
    show_default=True,
    help="An upstream id that has courses; may be repeated.",
)
@click.option(
    "--courses",
    default=_SANDBOX.courses,
    show_default=True,
    type=click.IntRange(min=0),
    help="The number of courses in each integration.",
)
@click.option(
    "--seed", default=_SANDBOX.seed, show_default=True, help="The same seed gives the same courses."
)
@click.option(
    "--churn",
    default=_SANDBOX.churn_per_second,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Changes per second.",
)
@click.option("--quiet", is_flag=True, help="Print only the address.")
def sandbox(
    *,
    host: str,
    port: int,
    api_key: str,
    integrations: tuple[str, ...],
    courses: int,
    seed: int,
    churn: float,
    quiet: bool,
) -> None:
    """Run a stand-in for the upstream, with courses that change and faults to inject."""
    from service.domain.errors import StartError
    from service.sandbox.server import run

    config = SandboxConfig(
        host=host,
        port=port,
        api_key=api_key,
        integrations=integrations,
        courses=courses,
        seed=seed,
        churn_per_second=churn,
        quiet=quiet,
    )
    try:
        run(config)
    except OSError as error:
        raise StartError(
            f"the sandbox cannot listen on {host} port {port} ({error.strerror}); "
            "give another --port, or 0 for any free one"
        ) from error


@coursewire.command()
@options.HOST
@options.port(9000)
@click.option(
    "--secret",
    envvar="COURSEWIRE_LISTEN_SECRET",
    show_envvar=True,
    help=(
        "The subscription's secret, whsec_..., or public key, whpk_...; without one, a "
        "secret is generated and printed."
    ),
)
@click.option(
    "--status",
    default=200,
    show_default=True,
    type=click.IntRange(200, 599),
    help=("The status returned for a verified push, to try out retries."),
)
@click.option("--json", "as_json", is_flag=True, help="Print the bodies instead, one per line.")
@click.option(
    "--exit-after",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after N different events.",
)
@click.pass_context
def listen(
    context: click.Context,
    *,
    host: str,
    port: int,
    secret: str | None,
    status: int,
    as_json: bool,
    exit_after: int | None,
) -> None:
    """Receive pushes, verify each and print it: a subscriber for development."""
    import asyncio

    from service.commands.listen.run import run
    from service.domain.errors import StartError
    from service.settings import LISTEN_SECRET, command_secret

    if context.get_parameter_source("secret") is not ParameterSource.COMMANDLINE:
        secret = command_secret(os.environ, LISTEN_SECRET)
    try:
        asyncio.run(
            run(
                secret,
                host=host,
                port=port,
                status=status,
                as_json=as_json,
                exit_after=exit_after,
            )
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from error
    except OSError as error:
        # asyncio's message repeats the address; a failed lookup has no positive errno.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        raise StartError(
            f"cannot listen on {host}:{port} ({reason}); give another --port, or 0 for any free one"
        ) from error


@coursewire.command()
@click.option(
    "--events",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after N verified events that agree with the sandbox's own log.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="The maximum duration in seconds: of the start, or with --events, of the whole run.",
)
@click.option("--keep", is_flag=True, help="Keep the data and the log.")
def demo(*, events: int | None, timeout: float, keep: bool) -> None:
    """Show the service at work: everything embedded, a sandbox whose courses change, a receiver."""
    from service.commands.demo.run import demo as perform

    sys.exit(perform(events=events, timeout=timeout, keep=keep))


_WHAT = click.argument("what", required=False, type=click.Choice(["polling", "delivery"]))


@coursewire.command()
@options.remote
@options.JSON
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> None:
    """Show the state of a running service; exit code 0 is ok, 1 degraded, 2 down."""
    from service.commands import api_client as remote
    from service.commands.attention import attention

    api = options.connect(context)
    try:
        found = api.status()
    except remote.RemoteError as error:
        click.echo(f"coursewire: {error}", err=True)
        sys.exit(remote.EXIT_CODES["down"])
    sys.exit(remote.show_status(found, sys.stdout, as_json=as_json, more=attention(api)))


@coursewire.command()
@_WHAT
@options.remote
@options.JSON
@click.pass_context
def pause(context: click.Context, *, what: str | None, as_json: bool) -> None:
    """Stop polling, delivery or both. Events are queued until their retention ends."""
    _control(context, "pause", what, as_json=as_json)


@coursewire.command()
@_WHAT
@options.remote
@options.JSON
@click.pass_context
def resume(context: click.Context, *, what: str | None, as_json: bool) -> None:
    """Start polling, delivery or both again."""
    _control(context, "resume", what, as_json=as_json)


def _control(
    context: click.Context, verb: Literal["pause", "resume"], what: str | None, *, as_json: bool
) -> None:
    from service.commands.api_client import show_paused

    show_paused(options.connect(context).control(verb, what), sys.stdout, as_json=as_json)


@coursewire.command()
@click.option(
    "--all", "everything", is_flag=True, help="Check every stored secret and address, not a sample."
)
@options.JSON
def doctor(*, everything: bool, as_json: bool) -> None:
    """Check settings, Redis, running parts and stored secrets, and print remedies; exit code 0 is
    ok, 1 warnings, 2 failures."""
    from service.commands.doctor.run import diagnose
    from service.settings import Settings

    settings = Settings.from_env(os.environ)
    sys.exit(diagnose(settings, sys.stdout, everything=everything, as_json=as_json))


@coursewire.command("rotate-keys")
@options.JSON
def rotate_keys(*, as_json: bool) -> None:
    """Encrypt all stored secrets with the first of COURSEWIRE_ENCRYPTION_KEYS, while the service
    runs, and report whether the other keys may be removed; exit code 0 is done, 1 not yet."""
    from service.commands import rotate_keys as rotation
    from service.settings import Settings

    settings = Settings.from_env(os.environ)
    sys.exit(rotation.run(settings, sys.stdout, as_json=as_json))


def main() -> None:
    """Run the command; a CoursewireError ends it with one line and without a traceback, as does
    Ctrl-C before the part has its own handler."""
    from service.domain.errors import CoursewireError, SettingsError

    try:
        sys.exit(coursewire.main(prog_name="coursewire", standalone_mode=False))
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CoursewireError as error:
        click.echo(f"coursewire: {error}", err=True)
        sys.exit(EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILED)


if __name__ == "__main__":
    main()
