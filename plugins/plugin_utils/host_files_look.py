# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files of a host, read with nothing but its shell: a tenth of what starting a Python there costs. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Optional, Sequence

_HEADER = "driftguard-file"
_MOST_BYTES = 262_144
# Whatever a file holds comes back as hexadecimal digits in one line; one that is no plain file, or too large, as "?".
_READ = (
    "if [ ! -e {0} ] && [ ! -L {0} ]; then echo {1} {2} -; "
    "elif [ -f {0} ] && [ -r {0} ] && [ \"$(wc -c < {0})\" -le {3} ]; "
    "then printf '{1} {2} =%s\\n' \"$(od -An -v -tx1 {0} | tr -d ' \\n')\"; else echo {1} {2} \\?; fi")


def read_command(paths: Sequence[Path], user: int = 0) -> str:
    """The command that says what is in files.

    :param user: number of the user who may see whether they are there; as another it fails and says nothing.
    """
    reads = [_READ.format(shlex.quote(str(path)), _HEADER, number, _MOST_BYTES) for number, path in enumerate(paths)]
    return "; ".join([f'[ "$(id -u)" = {user} ] || exit 3', *reads])


def parsed_files(said: str, number: int) -> Optional[list[Optional[str]]]:
    """Contents of that many files, None for one that isn't there. None altogether where one can't be read like this."""
    found: dict[str, Optional[str]] = {}
    for line in said.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == _HEADER and words[1] not in found:
            if words[2] == "-":
                found[words[1]] = None
            elif words[2].startswith("="):
                try:
                    found[words[1]] = bytes.fromhex(words[2][1:]).decode("utf-8")
                except ValueError:
                    return None
    wanted = [str(place) for place in range(number)]
    return [found[name] for name in wanted] if set(wanted) == set(found) else None
