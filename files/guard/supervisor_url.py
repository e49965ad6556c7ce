# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""REDIS_URL, REDIS_PASSWORD_FILE and REDIS_CA_FILE as an endpoint: understood in full, or refused."""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

from supervisor_resp import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Dict

LARGEST_PASSWORD = 4096
_SCHEMES = ("redis", "rediss", "unix")
_URL_REMEDY = "write it as redis://user@host:6379/0; percent-encode special characters or use REDIS_PASSWORD_FILE"
_PASSWORD_REMEDY = "mount the password as a file that the worker's user can read"
_CA_REMEDY = "mount the certificate authority's PEM file there"
_TLS_OPTIONS = (
    "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data", "ssl_check_hostname", "ssl_ciphers")
# For the application, which reads the same variable; they concern its client library and change nothing here.
_OTHERS = (
    "client_name", "protocol", "health_check_interval", "max_connections", "socket_timeout", "socket_connect_timeout",
    "socket_keepalive")
_OPTIONS = ("db", "username", "password", *_TLS_OPTIONS, *_OTHERS)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "f", "n", "")


class Wrong(Exception):
    """A variable that can't be used: its name, what was expected, what was found (never a secret), and the remedy."""

    def __init__(self, variable: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(variable, expected, found, remedy)
        self.variable, self.expected, self.found, self.remedy = variable, expected, found, remedy


def endpoint(url: str, password_file: str, ca_file: str) -> Endpoint:
    """Where Redis is.

    :param password_file: empty for none; wins over a password in the URL. :param ca_file: empty for the system's.
    :raises Wrong: something in it can't be used.
    """
    try:
        url.encode("utf-8")
        parts = urlsplit(url)
        port = parts.port or 6379
        query = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        # The reason may quote a part of the password, so it isn't passed on.
        raise _wrong_url("a URL that can't be parsed (not shown, it may hold a password)") from None
    if parts.scheme not in _SCHEMES:
        raise _wrong_url("something else (not shown, it may hold a password)")
    if not set(_OPTIONS).issuperset(query):
        raise Wrong(
            "REDIS_URL", "options that docs/worker.md lists", "an unknown option in its query", "take it out")
    # Decoded once more than usual, as the clients of the applications do it.
    options = {name: unquote(values[0]) for name, values in query.items() if values[0]}
    host, path = _place(parts.scheme, parts.hostname or "", unquote(parts.path))
    tls = _tls(options, ca_file) if parts.scheme == "rediss" else None
    if tls is None:
        _require_no_tls(options, ca_file)
    password = unquote(parts.password or "") or options.get("password", "")
    return Endpoint(
        host, port, path, _database("" if path else parts.path, options),
        unquote(parts.username or "") or options.get("username", ""),
        _password(password_file) if password_file else password, tls)


def _wrong_url(found: str) -> Wrong:
    return Wrong("REDIS_URL", "redis://, rediss:// or unix://", found, _URL_REMEDY)


def _place(scheme: str, host: str, path: str) -> "tuple[str, str]":
    if scheme == "unix":
        if not path:
            raise _wrong_url("a URL without the path of a socket")
        return "", path
    if not host:
        raise _wrong_url("a URL without a host")
    return host, ""


def _database(path: str, options: Dict[str, str]) -> int:
    text = options.get("db") or unquote(path).strip("/") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong_url("a path that isn't the number of a database")
    return int(text)


def _require_no_tls(options: Dict[str, str], ca_file: str) -> None:
    if ca_file:
        raise Wrong("REDIS_CA_FILE", "TLS", "a REDIS_URL without TLS", "use rediss:// in REDIS_URL, or leave it out")
    if set(_TLS_OPTIONS).intersection(options):
        raise Wrong("REDIS_URL", "TLS", "options of TLS in a URL without it", "use rediss://, or take them out")


def _tls(options: Dict[str, str], ca_file: str) -> partial[ssl.SSLContext]:
    make = partial(_context, dict(options, ssl_ca_certs=ca_file or options.get("ssl_ca_certs", "")))
    try:
        make()
    except OSError as error:
        reason = error.strerror if error.errno and error.filename else "no certificate, or not one that can be used"
        raise Wrong("REDIS_CA_FILE", "PEM files that can be read", reason or "unreadable", _CA_REMEDY) from None
    except ValueError:
        raise _wrong_url("a value in its query that TLS refuses") from None
    return make


def _context(options: Dict[str, str]) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - half of the start's time, and most fleets need none

    context = ssl.create_default_context(
        cafile=options["ssl_ca_certs"] or None, cadata=options.get("ssl_ca_data") or None)
    context.check_hostname = _boolean(options.get("ssl_check_hostname", "true"))
    demand = options.get("ssl_cert_reqs", "required")
    if demand not in ("none", "optional", "required"):
        raise ValueError(demand)
    if demand == "none":
        context.check_hostname = False
    context.verify_mode = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}[demand]
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if options.get("ssl_ciphers"):
        context.set_ciphers(options["ssl_ciphers"])
    return context


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def _password(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST_PASSWORD + 1)
    except UnicodeDecodeError:
        raise _wrong_password(path + ": not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise _wrong_password(path + ": " + str(getattr(error, "strerror", error))) from None
    # Editors and echo end a file with a newline, which is no part of the password.
    password = text.rstrip("\r\n")
    if not password or len(password) > LARGEST_PASSWORD:
        raise _wrong_password(path + (": too long" if password else ": empty"))
    return password


def _wrong_password(found: str) -> Wrong:
    return Wrong("REDIS_PASSWORD_FILE", "a file with the password", found, _PASSWORD_REMEDY)
