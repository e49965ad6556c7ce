# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which directories and files the words of a command name, as code: also those inside a text for a shell. Pure.

No shell is imitated: what can't be told is taken for code, so that nothing is mounted over it.
"""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Mapping

# Of these no image runs code: a pid file, a socket or a secret that an argument names makes no code of its directory.
SCRATCH = ("/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/dev", "/proc", "/sys")
# These hold data of all sorts: a name in a text makes none of them code as a whole, unless a program lies right in it.
WIDE = ("/", "/data", "/etc", "/home", "/media", "/mnt", "/root", "/var", "/var/lib")

_SHELL = re.compile(r"""[\s"'`;&|()<>$]""")
_TOKEN = re.compile(r"""[;&|()\n`]|[<>]|[^\s"'`;&|()<>\\]+""")
_ENDS_COMMAND = (";", "&", "|", "(", ")", "\n", "`")
_QUOTED_VALUE = re.compile(r"""=["']""")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
# --cache=/cache: documented as the way to hand data to a program
_OPTION = re.compile(r"-[\w.-]+=")
_PROGRAM = re.compile(r"\.(?:py|pyc|pyz|js|cjs|mjs|ts|sh|bash|rb|pl|php|lua|jar|war|so)\Z")
_BEFORE_COMMAND = ("exec", "if", "then", "else", "do", "while", "!", "{")
_ENTERS = ("cd", "pushd")
# They run nothing and put out nothing that a shell could run: mkdir -p /data/in && exec worker
_PREPARES = ("mkdir", "chown", "chmod", "touch", "rm", "test", "[")
# Options that have a program load code, for variables that hand them to it: --require /data/hook.js
_LOADS = re.compile(
    r"(?:^|[\s\"'])(?:-r|--require|--import|--loader|--experimental-loader"
    r"|-javaagent|-agentpath|-cp|-classpath|--class-path|-p|--module-path|-Xbootclasspath/[ap]"
    r"|-Djava\.(?:class|library)\.path)[\s=:\"']+([^\s\"']+)")


def word_paths(word: str, first: bool, directory: str, variables: Mapping[str, str]) -> Iterator[str]:
    """What a word of a command makes code: the directory of the path that it is, or those that a text in it names.

    :param first: whether it is the program, which may lie anywhere.
    :param directory: where relative paths begin.
    :param variables: of the process, for a text that uses them.
    """
    if _OPTION.match(word):
        return
    if _SHELL.search(word):
        yield from _text_paths(word, directory, variables)
        return
    for path in _paths(word, directory):
        if first or not in_any(parent(path), SCRATCH):
            yield parent(path)


def assigned(word: str) -> tuple[str, str]:
    """Name and value of ``NAME=value``, two empty texts for any other word."""
    name, sign, value = word.partition("=")
    return (name, value) if sign and name.isidentifier() else ("", "")


def loaded_paths(options: str, directory: str) -> Iterator[str]:
    """Files that options in a variable (``NODE_OPTIONS``, say) have a program load, and the directories they are in."""
    for value in _LOADS.findall(options):
        for path in _paths(value.partition("=")[0], directory) or [joined(directory, value)]:
            yield path
            if parent(path) not in (*WIDE, *SCRATCH):
                yield parent(path)


def text_variables(word: str, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that a word of a command sets: ``env NAME=value program``, or in a text for a shell."""
    known = dict(variables)
    for token in _tokens(word) if _SHELL.search(word) else [word]:
        name, value = assigned(_expanded(token, known))
        if name:
            known[name] = value
            yield name, value


def _text_paths(text: str, directory: str, variables: Mapping[str, str]) -> Iterator[str]:
    known = dict(variables)
    command = previous = ""
    for token in _tokens(text):
        word = _expanded(token, known)
        name, value = assigned(word)
        if token in _ENDS_COMMAND:
            command = ""
        elif name:
            known[name] = value
        elif previous != ">":
            # What output goes to isn't run by that.
            if command in _ENTERS and not word.startswith("-"):
                directory = joined(directory, word)
            yield from _argument_paths(command, word, directory)
            command = command or (word if word not in _BEFORE_COMMAND else "")
        previous = token


def _tokens(text: str) -> list[str]:
    # A continued line is one; of a quoted value the name stays known.
    return _TOKEN.findall(_QUOTED_VALUE.sub("=", text.replace("\\\n", " ")))


def _argument_paths(command: str, word: str, directory: str) -> Iterator[str]:
    if command in _ENTERS:
        found = [directory]
    elif command in _PREPARES:
        found = []
    else:
        found = [place for path in _paths(word, directory) for place in _with_neighbours(path)]
    yield from (path for path in found if not in_any(path, SCRATCH))


def _with_neighbours(path: str) -> list[str]:
    own = [path] if path not in WIDE else []
    return [*own, parent(path)] if parent(path) not in WIDE or _PROGRAM.search(path) else own


def _paths(word: str, directory: str) -> list[str]:
    """Paths that a word is: one, or several as in ``-cp /a:/b``; a word without a slash may be anything."""
    if word.startswith("file://"):
        return [normal(word[len("file://"):])]
    if word.startswith(("-javaagent:", "-agentpath:")):
        return [joined(directory, word.partition(":")[2].partition("=")[0])]
    if "/" not in word or word.startswith("-") or "://" in word or assigned(word)[0]:
        return []
    return [joined(directory, part) for part in word.split(":") if part.startswith("/")] or [joined(directory, word)]


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        known = variables.get(found.group(1) or found.group(2))
        return known or found.group(3) or found.group(0)

    return _VARIABLE.sub(value, text)


def joined(directory: str, path: str) -> str:
    """A path as it is read in a directory, absolute and without detours."""
    return normal(path if path.startswith("/") else f"{directory}/{path}")


def normal(path: str) -> str:
    """An absolute path without detours; the root's parent is the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def parent(path: str) -> str:
    """The directory that a normal path is in."""
    return path.rpartition("/")[0] or "/"


def inside(path: str, directory: str) -> bool:
    """Whether a normal path is a directory or below it."""
    return directory in ("/", path) or path.startswith(directory + "/")


def in_any(path: str, directories: Iterable[str]) -> bool:
    """Whether a normal path is inside one of some directories."""
    return any(inside(path, directory) for directory in directories)
