# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""How to reach Redis: the one place where connection options are made.

Options, never a live connection: every user (the registration, each queue, each worker) makes its own from them, since
a blocking consumer and a heartbeat can't share one. Everything in the URL counts, and the password file wins over it.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import parse_qs, urlsplit

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

from .settings import Settings, SettingsError, wrong

__all__ = ["RedisOptions", "from_settings"]

_URL = "REDIS_URL"
_PASSWORD_FILE = "REDIS_PASSWORD_FILE"
_CA_FILE = "REDIS_CA_FILE"
_LARGEST_PASSWORD = 4096
_URL_REMEDY = "write it as redis://user@host:6379/0; percent-encode special characters or use REDIS_PASSWORD_FILE"
# What a URL's query may set. Retries, pools and the decoding of answers belong to each user of the options.
_URL_ARGUMENTS = frozenset(
    (
        "db",
        "username",
        "password",
        "client_name",
        "protocol",
        "health_check_interval",
        "max_connections",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_check_hostname",
        "ssl_ciphers",
    )
)


# A server that is gone without a word is noticed within half a minute, also by who only listens.
_LIVELY: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 10,
        socket.TCP_KEEPINTVL: 5,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 30_000,
    },
}


@dataclass(frozen=True)
class RedisOptions:
    """Arguments for a Redis client.

    :param arguments: keyword arguments of :class:`redis.asyncio.Redis`; BullMQ takes the same as its connection.
        Without time limits and retries, which differ between a heartbeat and a blocking consumer.
    :param where: the server for messages, without user and password.
    """

    arguments: Mapping[str, Any] = field(repr=False)
    where: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no output may show."""
        password = self.arguments.get("password")
        return (str(password),) if password else ()

    def client(self, **arguments: Any) -> Redis:
        """A client with a connection of its own; nothing is sent before its first command.

        :param arguments: what this user needs beside the options, such as time limits.
        """
        return Redis(**{**_LIVELY, **self.arguments, **arguments})


def from_settings(settings: Settings) -> RedisOptions:
    """Make the options from ``REDIS_URL``, ``REDIS_PASSWORD_FILE`` and ``REDIS_CA_FILE``.

    :raises SettingsError: the URL can't be understood in full, a file can't be read, or they contradict each other.
    """
    arguments = _of_url(settings.redis_url.get_secret_value())
    if settings.redis_password_file:
        arguments["password"] = _password(settings.redis_password_file)
    if settings.redis_ca_file:
        _require_tls(arguments)
        arguments["ssl_ca_certs"] = str(settings.redis_ca_file)
    _check_tls_files(arguments)
    _try_to_build(arguments)
    return RedisOptions(arguments, _where(arguments))


def _of_url(url: str) -> dict[str, Any]:
    # Their text may quote a part of the password ("user:pa/ss@host" has the port "pa"), so it isn't passed on.
    try:
        url.encode()
        arguments: dict[str, Any] = dict(parse_url(url))
        parts = urlsplit(url)
    except ValueError:
        raise _error(_URL, "a URL that can't be parsed (not shown, it may hold a password)", _URL_REMEDY) from None
    if not _URL_ARGUMENTS.issuperset(parse_qs(parts.query, keep_blank_values=True)):
        raise _error(_URL, "an unknown option in its query", "take it out; docs/worker.md lists those that work")
    kind = arguments.pop("connection_class", None)
    if kind is UnixDomainSocketConnection:
        arguments["unix_socket_path"] = arguments.pop("path", None)
    else:
        _require_host(arguments)
        _require_database(parts.path)
    if kind is SSLConnection:
        arguments["ssl"] = True
    return arguments


def _require_host(arguments: Mapping[str, Any]) -> None:
    if not arguments.get("host"):
        raise _error(_URL, "a URL without a host", _URL_REMEDY)


def _require_database(path: str) -> None:
    # redis-py passes silently over a path that isn't a number, and would use database 0.
    if path.strip("/") and not path.strip("/").isdecimal():
        raise _error(_URL, "a path that isn't the number of a database", _URL_REMEDY)


def _require_tls(arguments: Mapping[str, Any]) -> None:
    if not arguments.get("ssl"):
        raise _error(_CA_FILE, f"a {_URL} without TLS", f"use rediss:// in {_URL}, or leave {_CA_FILE} out", "TLS")


def _check_tls_files(arguments: Mapping[str, Any]) -> None:
    ca_file = arguments.get("ssl_ca_certs")
    if not ca_file:
        return
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise _error(_CA_FILE, f"{ca_file}: {reason}", "mount the certificate authority's PEM file there") from None


def _password(path: Path) -> str:
    remedy = "mount the password as a file that the worker's user can read"
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST_PASSWORD + 1)
    except UnicodeDecodeError:
        raise _error(_PASSWORD_FILE, f"{path}: not UTF-8 text", remedy) from None
    except OSError as error:
        raise _error(_PASSWORD_FILE, f"{path}: {error.strerror}", remedy) from None
    # Editors and `echo` end a file with a newline, which is no part of the password.
    password = text.rstrip("\r\n")
    if not password or len(password) > _LARGEST_PASSWORD:
        size = "empty" if not password else f"more than {_LARGEST_PASSWORD} characters"
        raise _error(_PASSWORD_FILE, f"{path}: {size}", remedy)
    return password


def _where(arguments: Mapping[str, Any]) -> str:
    database = arguments.get("db", 0)
    if "unix_socket_path" in arguments:
        return f"unix://{arguments['unix_socket_path']} database {database}"
    scheme = "rediss" if arguments.get("ssl") else "redis"
    return f"{scheme}://{arguments['host']}:{arguments.get('port', 6379)}/{database}"


def _try_to_build(arguments: Mapping[str, Any]) -> None:
    # A value that the client refuses would otherwise surface at the first command. The blocking client takes the same
    # arguments, and needs no event loop.
    try:
        pool: Any = BlockingRedis(**arguments).connection_pool
        pool.make_connection()
    except (RedisError, TypeError, ValueError):
        raise _error(_URL, "a value in its query that the Redis client refuses", _URL_REMEDY) from None


def _error(variable: str, found: str, remedy: str, expected: str | None = None) -> SettingsError:
    return SettingsError([wrong(variable, found, expected, remedy)])
