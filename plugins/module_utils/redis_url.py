# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Redis URL taken apart. Pure; never shows what it finds in the URL, since that holds a password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from .errors import DriftguardError

FORM = "redis://[user[:password]@]host[:port][/database], or rediss:// for TLS"
DEFAULT_PORT = 6379
IGNORED_QUERIES = frozenset({"family"})  # ioredis's choice of IPv4 or 6; Python tries both


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is and who we are there."""

    host: str
    port: int
    database: int
    username: Optional[str]
    password: Optional[str]
    tls: bool

    @property
    def place(self) -> str:
        """host:port/database, for messages; without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"


def parse_redis_url(url: str) -> RedisAddress:
    """Take a URL apart.

    :raises DriftguardError: it isn't one; the message repeats no part of it.
    """
    if not url.isprintable() or " " in url:
        raise _unreadable("spaces or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise _unreadable("a host or port that can't be read (a sign in the password that isn't encoded?)") from error
    if parts.scheme not in ("redis", "rediss"):
        raise _unreadable("another scheme, or none")
    if not host or parts.fragment:
        raise _unreadable("no plain host name (a sign in the password that isn't encoded?)")
    return RedisAddress(
        host, port, _database(parts), _decoded(parts.username), _decoded(parts.password), parts.scheme == "rediss")


def passwords_in(url: str) -> set[str]:
    """The password as it stands in a URL, readable or not, and as it is meant; for hiding it."""
    written = url.rpartition("@")[0].partition("://")[2].partition(":")[2]
    return {text for text in (written, unquote(written)) if text}


def _decoded(value: Optional[str]) -> Optional[str]:
    return unquote(value) if value else None


def _database(parts: SplitResult) -> int:
    query = parse_qs(parts.query, keep_blank_values=True)
    if set(query) - IGNORED_QUERIES - {"db"}:
        raise _unreadable("options after a question mark that aren't known here")
    text = query.get("db", [parts.path.strip("/")])[0] or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise _unreadable("a database that isn't a number")
    return int(text)


def _unreadable(found: str) -> DriftguardError:
    return DriftguardError(
        "option redis_url", FORM, found, "mend the URL; write special signs of a password as %XX or use redis_password")
