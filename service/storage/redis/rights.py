"""The rights that the service needs in Redis, and the check that the server grants them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import (
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ResponseError,
)

from service.domain.errors import RedisRefusedError
from service.settings import PREFIX
from service.storage.redis import keys
from service.storage.redis.client import NotServingError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_OURS: Final = "cw:probe"
_RQ: Final = "rq:probe"
# the library that unpacks the arguments of scripts
_SCRIPT: Final = "return cmsgpack.unpack('\\1')"

_Asked = tuple[str, tuple[str, ...]]  # a command, empty for a failed connection, and its arguments
_Refusal = tuple[_Asked, ResponseError]

KEY_PATTERNS: Final = (keys.OURS, "rq:*")

# Every command that the service and its RQ workers send, by its name in an ACL, with valid
# arguments. The tests run under a user that may send these and no other.
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    # connections
    "client|id": (),
    "client|setname": ("coursewire",),
    "discard": (),
    "exec": (),
    "multi": (),
    "ping": (),
    "select": ("0",),
    "unwatch": (),
    "watch": (_RQ,),
    # the server
    "info": (),
    "memory|usage": (_OURS,),
    "time": (),
    # scripts
    "eval": (_SCRIPT, "0"),
    "evalsha": ("0" * 40, "1", _OURS),
    # keys
    "del": (_OURS,),
    "exists": (_OURS,),
    "expire": (_OURS, "1"),
    "persist": (_OURS,),
    "pexpire": (_OURS, "1"),
    "pttl": (_OURS,),
    "rename": (_OURS, _OURS),
    "scan": ("0",),
    "unlink": (_OURS,),
    # strings
    "append": (_OURS, ""),
    "get": (_OURS,),
    "set": (_OURS, ""),
    # hashes
    "hdel": (_OURS, "f"),
    "hexists": (_OURS, "f"),
    "hget": (_OURS, "f"),
    "hgetall": (_OURS,),
    "hincrby": (_OURS, "f", "1"),
    "hincrbyfloat": (_RQ, "f", "1"),
    "hkeys": (_OURS,),
    "hlen": (_OURS,),
    "hmget": (_OURS, "f"),
    "hrandfield": (_OURS,),
    "hscan": (_OURS, "0"),
    "hset": (_OURS, "f", ""),
    "hsetnx": (_OURS, "f", ""),
    # lists
    "blmove": (_RQ, _RQ, "LEFT", "RIGHT", "1"),
    "lindex": (_OURS, "0"),
    "llen": (_RQ,),
    "lpop": (_OURS,),
    "lrange": (_RQ, "0", "-1"),
    "lrem": (_RQ, "0", ""),
    "rpush": (_RQ, ""),
    # sets
    "sadd": (_RQ, ""),
    "smembers": (_RQ,),
    "srem": (_RQ, ""),
    # sorted sets
    "zadd": (_OURS, "1", ""),
    "zcard": (_OURS,),
    "zcount": (_OURS, "0", "1"),
    "zmscore": (_OURS, ""),
    "zrange": (_OURS, "0", "1"),
    "zrangebyscore": (_OURS, "0", "1"),
    "zrem": (_OURS, ""),
    "zremrangebyscore": (_OURS, "0", "1"),
    "zrevrange": (_OURS, "0", "1"),
    "zscan": (_OURS, "0"),
    "zscore": (_OURS, ""),
    "zunionstore": (_OURS, "1", _OURS),
    # streams
    "xadd": (_OURS, "*", "f", ""),
    "xdel": (_OURS, "1"),
    "xinfo|stream": (_OURS,),
    "xlen": (_OURS,),
    "xrange": (_OURS, "-", "+"),
    "xread": ("STREAMS", _OURS, "0"),
    "xrevrange": (_OURS, "+", "-"),
    "xtrim": (_OURS, "MAXLEN", "1"),
}

# Optional commands. If they are refused, the service cannot detect whether snapshots are written, a
# worker drains some seconds later, and `rq info` does not show addresses.
WELCOME: Final = ("client|info", "client|unblock", "config|get")

# Commands that are sent and not queued. The first transaction is empty; the second queues the
# others.
SENT: Final[tuple[_Asked, ...]] = (
    ("watch", COMMANDS["watch"]),
    ("eval", COMMANDS["eval"]),
    ("multi", ()),
    ("exec", ()),
    ("multi", ()),
)
_DISCARD: Final[_Asked] = ("discard", ())

_COMMAND: Final = re.compile(r"permissions to run the '([^']+)' command")

_KEYS: Final = (
    *(key for name, key in vars(keys).items() if name.isupper() and isinstance(key, str)),
    *(keys.rq_queue(queue) for queue in keys.QUEUES),
    *(of(kind) for of in (keys.due, keys.claimed, keys.overdue) for kind in ("polls", "outboxes")),
    *(f"rq:{kind}:probe" for kind in ("job", "worker", "wip", "failed", "execution", "results")),
)

RECHECK_SECONDS: Final = 10.0  # if all rights are granted
RECHECK_REFUSED_SECONDS: Final = 1.0

_CLUSTER_ERRORS: Final = (ClusterError, ClusterCrossSlotError, MovedError)
_CLUSTER: Final = (
    "Redis runs in cluster mode, which is not supported, because one script changes many keys; "
    "give the address of a server without cluster mode"
)


def acl_rules() -> tuple[str, ...]:
    """The rules of the smallest user that supports all features."""
    commands = (f"+{command}" for command in sorted((*COMMANDS, *WELCOME)))
    return (*(f"~{pattern}" for pattern in KEY_PATTERNS), "-@all", *commands)


class Rights:
    """Checks that the server grants the rights that the service needs.

    It writes nothing: commands are queued in a transaction, where the server checks each as if it
    were to run, and the transaction is discarded.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = asyncio.Lock()
        self._fault: str | None = None
        self._look_again_at = 0.0

    async def fault(self) -> str | None:
        """Why the service cannot work with the server, with the remedy, in one line; None if it
        can.

        It checks again after a while, sooner after a fault. Raises ConnectionError or TimeoutError
        if the server does not answer.
        """
        async with self._lock:
            if time.monotonic() >= self._look_again_at:
                # While the server refuses writes, rights cannot be checked: the last result stands.
                with suppress(NotServingError):
                    self._fault = await self._find_fault()
                wait = RECHECK_SECONDS if self._fault is None else RECHECK_REFUSED_SECONDS
                self._look_again_at = time.monotonic() + wait
            return self._fault

    async def check(self) -> None:
        """Raises RedisRefusedError with the fault, if there is one, and the errors of `fault`."""
        if (fault := await self.fault()) is not None:
            raise RedisRefusedError(fault)

    async def _find_fault(self) -> str | None:
        # A separate connection, so that the commands at its start are checked too.
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
        given = self._redis.connection_pool.connection_kwargs
        user, db = str(given.get("username") or "default"), str(given.get("db") or 0)
        try:
            await connection.connect()
            return _judged(await _tried(connection, db), user)
        except AuthenticationError as error:
            return (
                f"Redis refuses the user or the password in {PREFIX}REDIS_URL ({error}); correct "
                "them there, or in the server's ACL"
            )
        except ResponseError as error:
            return _judged([(("", ()), error)], user)
        finally:
            await connection.disconnect(nowait=True)


async def _tried(connection: Any, db: str) -> list[_Refusal]:
    """The commands that the server refuses."""
    asked = await _ask(connection, SENT)
    _, _, multi, executed, again = (error for _, error in asked)
    # Otherwise no transaction is open, and the following commands would run.
    if multi is None and (again is None or executed is not None):
        commands = (COMMANDS | {"select": (db,)}).items()
        queued = [one for one in commands if one not in (*SENT, _DISCARD)]
        asked += await _ask(connection, [*queued, ("exists", _KEYS), _DISCARD])
    return [(one, error) for one, error in asked if error is not None]


async def _ask(
    connection: Any, asked: Sequence[_Asked]
) -> list[tuple[_Asked, ResponseError | None]]:
    packed = [b"".join(connection.pack_command(*name.split("|"), *given)) for name, given in asked]
    await connection.send_packed_command(packed)
    answers: list[tuple[_Asked, ResponseError | None]] = []
    for one in asked:
        try:
            await connection.read_response()
        except OutOfMemoryError:  # it is granted; callers wait for memory elsewhere
            answers.append((one, None))
        except ResponseError as error:
            answers.append((one, error))
        else:
            answers.append((one, None))
    return answers


def _judged(refused: Sequence[_Refusal], user: str) -> str | None:
    """The fault that follows from refused commands; None if all are granted."""
    commands, patterns, unknown = set[str](), set[str](), set[str]()
    others: list[str] = []
    some_keys = False
    for (name, given), error in refused:
        text = str(error)
        if (fault := _of_the_address(error, text, user)) is not None:
            return fault
        if found := _COMMAND.search(text):
            commands.add(name or found[1])
        elif given is _KEYS and isinstance(error, NoPermissionError):
            some_keys = True  # the error does not name the missing one
        elif isinstance(error, NoPermissionError):
            patterns |= {one for one in KEY_PATTERNS if any(key[:3] == one[:3] for key in given)}
        elif "unknown command" in text or "unknown subcommand" in text:
            unknown.add(name)
        else:
            others.append(f"{name.upper()}: {text}" if name else text)
    if some_keys and not patterns:
        patterns.update(KEY_PATTERNS)
    if commands or patterns:
        return _not_granted(sorted(commands), sorted(patterns), user)
    if unknown:
        return (
            f"Redis does not know {_shown(sorted(unknown))}; end the renaming of commands in its "
            "configuration, or use a server that has them"
        )
    return f"Redis refuses a command that the service needs ({others[0]})" if others else None


def _of_the_address(error: ResponseError, text: str, user: str) -> str | None:
    """The fault in the address, or in the server that answers there; None if neither."""
    if isinstance(error, _CLUSTER_ERRORS):
        return _CLUSTER
    if "run the 'sentinel" in text:
        return (
            "the sentinels do not grant their default user SENTINEL MASTERS; run ACL SETUSER "
            "default +sentinel|masters on each of them"
        )
    if "cmsgpack" in text and "unknown command" not in text:
        return (
            f"Redis runs scripts without the library cmsgpack ({text}); use Redis or Valkey itself"
        )
    if "DB index" in text:
        return (
            f"Redis has no database of the number in {PREFIX}REDIS_URL ({text}); write another, "
            "most often 0"
        )
    if "access database" in text:
        return (
            f"Redis does not grant the user {user!r} the database in {PREFIX}REDIS_URL; write "
            "another there, or grant it by db= in the server's ACL"
        )
    return None


def _not_granted(commands: Sequence[str], patterns: Sequence[str], user: str) -> str:
    missing = []
    if commands:
        missing.append(f"the command{'s' * (len(commands) > 1)} {_shown(commands)}")
    if patterns:
        missing.append(f"the keys {' and '.join(patterns)}")
    rules = [*(f"~{pattern}" for pattern in patterns), *(f"+{command}" for command in commands)]
    return (
        f"Redis does not grant the user {user!r} {' and '.join(missing)}; run ACL SETUSER {user} "
        f"{' '.join(rules)}, and write the same into its ACL file (docs/operations/redis.md has "
        "the whole list)"
    )


def _shown(commands: Iterable[str]) -> str:
    return ", ".join(command.replace("|", " ").upper() for command in commands)
