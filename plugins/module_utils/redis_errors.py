# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to say when Redis refuses or doesn't answer. Pure."""

from __future__ import annotations

import re
import ssl
from typing import Optional

from .errors import DriftguardError
from .untrusted import clean

# Matched against "<class>: <message>" of redis-py's error, since its classes differ from release to release;
# the first match wins.
_RULES: tuple[tuple[str, str, str], ...] = (
    (r"NOAUTH|Authentication required", "a password that it accepts",
     "it wants a password: give redis_password, or one in the URL"),
    (r"without any password configured|no password is set", "to need no password",
     "leave redis_password out, and the URL's; or give the server a password (requirepass)"),
    (r"WRONGPASS|AuthenticationError|AuthenticationWrongNumber",
     "a user and password that it accepts", "compare user and password with the server's (ACL LIST, requirepass)"),
    (r"NOPERM|NoPermission|ACL failure|no permissions|can't run this command", "a user that may do this",
     "grant it with ACL SETUSER: ~<fleet>:* &<fleet>:* +@read +@write +@scripting +publish +ping +time +info"),
    (r"BusyLoading|^\w+: LOADING", "a server that is ready",
     "it is still loading its data: wait until redis-cli PING answers PONG, then run again"),
    (r"READONLY|ReadOnly", "a primary", "redis_url points to a replica: point it to the primary"),
    (r"OOM command|OutOfMemory", "room for a few bytes",
     "it is at its memory limit: raise maxmemory or remove data, then run again"),
    (r"MISCONF", "a server that takes writes",
     "it can't save to disk and refuses writes: see its log, free disk space, then run again"),
    (r"MaxClients|max number of clients", "a free connection",
     "raise maxclients or find who holds the connections (CLIENT LIST), then run again"),
    (r"WRONGTYPE", "keys of the types that this collection writes",
     "something else wrote under the fleet's prefix: find it (TYPE), rename or remove the key, then run again"),
    (r"^\w+: BUSY ", "a server that isn't busy with a script",
     "wait for the script that runs there, or SCRIPT KILL it, then run again"),
    (r"unknown command", "Redis 5 or later", "upgrade the server, or undo rename-command for what is named here"),
)
_TLS = ("a TLS connection to a server whose certificate can be verified",
        "use rediss:// where the port speaks TLS, check the certificate's name and date, give its CA (redis_ca_file)")
_UNREACHABLE = (
    "a server that answers",
    "check that it runs, host and port in redis_url (redis:// or rediss://), and the firewall between here and there")
_OTHER = ("an answer", "see the Redis server's log and run again")


def redis_error(subject: str, error: BaseException, answered: bool) -> DriftguardError:
    """The failure to raise for an error of redis-py or of the socket under it.

    :param subject: names host, port, database and what was asked or which key.
    :param answered: whether the server sent this error (redis-py's ResponseError), or none came through.
    """
    # An unknown command comes back with its arguments, which for AUTH would be the password.
    said = clean(str(error).partition(", with args")[0], 300) or type(error).__name__
    if _is_tls(error):
        expected, remedy = _TLS
    else:
        expected, remedy = _rule(f"{type(error).__name__}: {error}") or (_OTHER if answered else _UNREACHABLE)
    return DriftguardError(subject, expected, said, remedy)


def _rule(text: str) -> Optional[tuple[str, str]]:
    found = [(expected, remedy) for pattern, expected, remedy in _RULES if re.search(pattern, text)]
    return found[0] if found else None


def _is_tls(error: Optional[BaseException]) -> bool:
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ssl.SSLError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
