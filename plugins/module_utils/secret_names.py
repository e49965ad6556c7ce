# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and texts that say of a value that it is a secret."""

from __future__ import annotations

import re
from typing import Sequence

_NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|TOKEN|SECRET|KEY|APIKEY|CREDENTIALS?|PRIVATE_?KEY|DSN)(?:_\d+)?$"
    r"|(?:^|_)(?:PASSWORD|SECRET|TOKEN)_", re.IGNORECASE)
# A name that ends so names a place or a setting of a secret, not the secret.
_NOT = re.compile(
    r"_(?:FILE|PATH|DIR|NAME|TTL|LIFETIME|EXPIRY|EXPIRES|EXPIRES_IN|LENGTH|SIZE|URL|ENABLED|COUNT|LIMIT|ID)$"
    r"|(?:^|_)PUBLIC_?KEY$|(?:^|_)(?:SORT|CACHE|PARTITION|ROUTING|PRIMARY|FOREIGN)_KEY$", re.IGNORECASE)
_PASSWORD_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@?#]*:([^\s@/]+)@")
_OPTION = re.compile(
    r"--?(?:[A-Za-z0-9]+[-_])*(?:password|passwd|passphrase|token|secret|api-?key)(?:=|\s+)([^\s$-]\S*)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: ``DB_PASSWORD``, ``API_TOKEN``, but not ``DB_PASSWORD_FILE``."""
    return _NAME.search(name) is not None and _NOT.search(name) is None


def secret_in_command(words: Sequence[str]) -> str:
    """A secret that a command names after an option or in a URL, else an empty text."""
    line = " ".join(words)
    option = _OPTION.search(line)
    return password_in_url(line) or (option[1] if option else "")


def password_in_url(text: str) -> str:
    """The password of the first URL in a text that has one, else an empty text."""
    found = _PASSWORD_URL.search(text)
    return found[1] if found else ""
