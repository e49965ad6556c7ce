# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that talks to Redis.

What comes back is untrusted: it is bounded in size by the server-side scripts, decoded with replacement, and checked
for its form by the pure modules that know the form (record.py, release_history.py, registrations.py).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence

from .errors import DriftguardError
from .lease_text import parse_lease
from .record import Record, parse_record, render_compact
from .redis_errors import redis_error
from .redis_options import client_options
from .redis_scripts import PUBLISH, READ_HISTORY, READ_REGISTRATIONS
from .redis_url import parse_redis_url, passwords_in
from .registrations import FIELDS, Snapshot, split_member
from .release_history import HistoryEntry, fenced_since, parse_history
from .untrusted import MAX_DOCUMENT, check_fleet, clean, decode, digits

try:
    import redis

    MISSING: Optional[str] = None
    _FAILURES: tuple[type[Exception], ...] = (redis.RedisError, OSError, UnicodeError)
except ImportError as _error:
    MISSING = str(_error)
    _FAILURES = ()

CHUNK = 1000
MAX_REGISTRATIONS = 100_000
HISTORY_LENGTH = 100


@dataclass(frozen=True)
class Client:
    """A connection that the server lists."""

    name: str
    address: str
    library: str


class RedisGateway:
    """One Redis database.

    :param client: a redis-py client that answers bytes; :meth:`connect` makes one.
    :param place: host:port/database, for messages.
    """

    def __init__(self, client: Any, place: str) -> None:
        self._client = client
        self.place = place

    @classmethod
    def connect(
        cls, url: str, password: Optional[str] = None, ca_file: Optional[str] = None, timeout: float = 5.0,
    ) -> RedisGateway:
        """Connect and authenticate.

        :param url: redis:// or rediss:// with user, password and database where needed.
        :param password: wins over the URL's.
        :param ca_file: CA bundle that signed the server's certificate; the system's own by default.
        :param timeout: seconds to wait for the connection and for each answer.
        :raises DriftguardError: the library is missing, or the server can't be reached or refuses.
        """
        address = parse_redis_url(url)
        if MISSING is not None:
            raise DriftguardError(
                "Python library redis", "to be installed for the interpreter that runs this module", MISSING,
                "run playbooks/bootstrap.yml, or install python3-redis (Debian) or the redis package")
        pool = redis.ConnectionPool(
            connection_class=redis.SSLConnection if address.tls else redis.Connection,
            **client_options(address, password, ca_file, timeout))
        gateway = cls(redis.Redis(connection_pool=pool), address.place)
        gateway._greet()
        return gateway

    def time(self) -> float:
        """Redis's own time, in seconds since 1970: the only clock that leases and registrations know."""
        with self._asking("TIME"):
            seconds, microseconds = self._client.time()
            return float(seconds) + float(microseconds) / 1e6

    def script(self, what: str, lua: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run a Lua script atomically; its answer, with byte strings decoded.

        :param what: names it, or the key it is about, in a failure.
        """
        return _decoded(self.raw_script(what, lua, keys, arguments))

    def raw_script(self, what: str, lua: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Like :meth:`script`, with byte strings as they are."""
        with self._asking(what):
            return self._client.eval(lua, len(keys), *keys, *arguments)

    def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Answers to commands, in one pipelined pass; a :class:`DriftguardError` for one whose key has another type.

        :raises DriftguardError: the server refuses a command for any other reason; names command and key.
        """
        with self._asking(f"{len(commands)} commands in one pass"):
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = pipeline.execute(raise_on_error=False)
        return [self._answer(command, answer) for command, answer in zip(commands, answers)]

    def command(self, *words: str) -> Any:
        """One command; its answer as the server shapes it, byte strings decoded. Two words name it in a failure."""
        with self._asking(" ".join(words[:2])):
            return _decoded(self._client.execute_command(*words))

    def text(self, key: str) -> Optional[str]:
        """The start (64 KiB) of a string key, None where it is missing or empty."""
        with self._asking(f"key {key}"):
            return decode(self._client.getrange(key, 0, MAX_DOCUMENT)) or None

    def registrations(self, fleet: str) -> Snapshot:
        """All registrations of a fleet: one range read of the index and one pass over what it names.

        :raises DriftguardError: the index can't be read, or has more than 100,000 members.
        """
        index = f"{check_fleet(fleet)}:workers"
        with self._asking(f"key {index}"):
            members = [decode(member) for member in self._client.zrange(index, 0, MAX_REGISTRATIONS)]
        if len(members) > MAX_REGISTRATIONS:
            raise DriftguardError(
                f"Redis {self.place}, key {index}", f"at most {MAX_REGISTRATIONS} registrations", "more",
                f"find out who writes to it; remove entries by age with ZREMRANGEBYSCORE {index}")
        named = [(member, split_member(member)) for member in members]
        strange = [f"{clean(member)!r} isn't an instance" for member, parts in named if parts is None]
        parts = sorted(parts for _member, parts in named if parts is not None)
        snapshot = Snapshot(self.time(), malformed=strange)
        for (service, instance), row in zip(parts, self._rows(fleet, parts)):
            snapshot.take(service, instance, row)
        return snapshot

    def record(self, fleet: str) -> Optional[Record]:
        """The fleet's release record, None when there is none.

        :raises DriftguardError: what is there isn't a record.
        """
        key = f"{check_fleet(fleet)}:release"
        text = self.text(key)
        remedy = f"if it isn't another application's, DEL {key} and deploy again"
        return None if text is None else parse_record(text, f"Redis {self.place}, key {key}", fleet, remedy)

    def generation(self, fleet: str) -> int:
        """The highest deployment number handed out or published, 0 when Redis knows none."""
        stored = digits(self.text(f"{check_fleet(fleet)}:generation") or "0")
        record = self.record(fleet)
        return max(stored or 0, record.generation if record else 0)

    def publish_record(
        self, record: Record, entry: Optional[HistoryEntry] = None, token: str = "", number: int = 0,
    ) -> int:
        """Make a record the fleet's, in one step: store it, append to the history, tell subscribers.

        :param entry: what to append; None appends nothing.
        :param token: of the caller's lease; with one, another's lease refuses too, also one that has ended since.
        :param number: of the deploy that publishes, where that isn't the record's generation.
        :returns: how many subscribers heard of it; -1 when this user may not publish on the channel
            (workers then learn of it at their next heartbeat).
        :raises DriftguardError: a later deploy was here, or the target was fenced since this one began; nothing was
            changed.
        """
        fleet = check_fleet(record.fleet)
        keys = [f"{fleet}:{name}" for name in ("release", "generation", "releases", "lock:deploy", "lock:deploy:last")]
        verdict, detail = self.script(f"publishing {keys[0]}", PUBLISH, keys, [
            number or record.generation, render_compact(record), entry.as_json() if entry else "", token,
            HISTORY_LENGTH, f"{fleet}:release:events"])
        if verdict == "published":
            return int(detail)
        if verdict == "fenced":
            raise fenced_since(f"Redis {self.place}, key {keys[0]}", number or record.generation, clean(detail))
        # Without its token, which only its holder may know.
        lease = parse_lease(detail) or "something that isn't a lease"
        found = f"another deploy's lease: {lease}" if verdict == "locked" else f"deploy number {clean(detail)}"
        raise DriftguardError(
            f"Redis {self.place}, key {keys[0]}", f"no deploy after number {number or record.generation}", found,
            "another deploy has overtaken this one, nothing was published; start a new deploy")

    def history(self, fleet: str) -> tuple[list[HistoryEntry], int]:
        """The last releases that were settled, newest first, and how many entries could not be read."""
        key = f"{check_fleet(fleet)}:releases"
        return parse_history(self.script(f"key {key}", READ_HISTORY, [key], [HISTORY_LENGTH - 1]))

    def preflight(self) -> dict[str, Any]:
        """Refuse a server that would lose keys or split them up.

        :returns: ``version``, and ``policy``: what it evicts when it is full.
        :raises DriftguardError: an eviction policy other than noeviction, cluster mode, or a replica.
        """
        with self._asking("INFO"):
            facts = {str(key): str(value) for section in ("server", "memory", "replication")
                     for key, value in self._client.info(section).items()}
        for key, wanted, remedy in _REQUIREMENTS:
            if facts.get(key, wanted) != wanted:
                raise DriftguardError(f"Redis {self.place}", f"{key} {wanted}", clean(facts[key]), remedy)
        return {"version": clean(facts.get("redis_version", "")), "policy": facts.get("maxmemory_policy", "")}

    def clients(self) -> Optional[list[Client]]:
        """Who is connected, None when this user may not ask. An alarm at best: names are claims, and clients go."""
        try:
            with self._asking("CLIENT LIST"):
                rows = self._client.client_list()
        except DriftguardError:
            return None
        return [Client(*(clean(str(row.get(name, ""))) for name in ("name", "addr", "lib-name"))) for row in rows]

    def _rows(self, fleet: str, parts: Sequence[tuple[str, str]]) -> Iterator[Any]:
        keys = [f"{fleet}:worker:{service}:{instance}:version" for service, instance in parts]
        with self._asking(f"keys {fleet}:worker:*:version"):
            pipeline = self._client.pipeline(transaction=False)
            for start in range(0, len(keys), CHUNK):
                chunk = keys[start:start + CHUNK]
                pipeline.eval(READ_REGISTRATIONS, len(chunk), *chunk, *FIELDS)
            answers = pipeline.execute()
        for answer in answers:
            yield from json.loads(decode(answer))

    def _answer(self, command: Sequence[Any], answer: Any) -> Any:
        if not isinstance(answer, Exception):
            return answer
        named = " ".join(clean(decode(word) if isinstance(word, bytes) else str(word)) for word in command[:2])
        error = redis_error(f"Redis {self.place}, {named}", answer, True)
        if "WRONGTYPE" in str(answer):
            return error
        raise error from answer

    def _greet(self) -> None:
        try:
            with self._asking("connection"):
                self._client.ping()
        except DriftguardError as error:
            if not isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                raise

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            raise redis_error(f"Redis {self.place}, {what}", error, isinstance(error, redis.ResponseError)) from error


def gateway_of(module: Any) -> RedisGateway:
    """A connection from a module's ``redis_*`` options; a password in the URL is kept out of all the module says.

    :raises DriftguardError: as :meth:`RedisGateway.connect`.
    """
    module.no_log_values.update(passwords_in(module.params["redis_url"]))
    return gateway_for(module.params)


def gateway_for(options: Mapping[str, Any]) -> RedisGateway:
    """A connection as ``redis_*`` options say.

    :raises DriftguardError: as :meth:`RedisGateway.connect`.
    """
    return RedisGateway.connect(
        options["redis_url"], options["redis_password"], options["redis_ca_file"], options["redis_timeout"])


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return decode(value) if isinstance(value, bytes) else value


_REQUIREMENTS = (
    ("redis_mode", "standalone", "use a standalone server (replicas and Sentinel are fine): scripts here span keys"),
    ("role", "master", "point redis_url to the primary"),
    ("maxmemory_policy", "noeviction",
     "set maxmemory-policy noeviction (CONFIG SET, and redis.conf): eviction drops jobs and records"),
)
