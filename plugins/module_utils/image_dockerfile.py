# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a Dockerfile builds upon, and whether each is pinned.

Reads as much of the language as that question needs (Dockerfile reference: parser directives, continuation lines,
here-documents, ``ARG`` before the first ``FROM``, ``FROM``, ``COPY --from`` and ``RUN --mount=from``).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Optional

from .errors import DriftguardError

PINNING = "repository@sha256:<digest>, or a local repository:<image id>"
SCRATCH = "scratch"
_BY_DIGEST = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._/:-]*)@(sha256:[0-9a-f]{64})\Z")
_BY_ID = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._/:-]*):([0-9a-f]{64})\Z")
_DIRECTIVE = re.compile(r"^#\s*([A-Za-z]+)\s*=\s*(.*?)\s*$")
_HEREDOC = re.compile(r"""^\d*<<-?["']?([^<"']+)["']?$""")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^{}$]*))?\})")
_FROM = re.compile(r"^(?:--\S+\s+)*(\S+)(?:\s+[Aa][Ss]\s+(\S+))?\Z")
_FLAG = re.compile(r"^--(?:from=(\S+)|mount=(\S+)|\S+)\s+")


@dataclass(frozen=True)
class Pinned:
    """An image named by content.

    :param digest: of the manifest, or for a local image its id.
    :param local: it is a tag that repeats the image's id, which only the engine that has it can confirm.
    """

    reference: str
    name: str
    digest: str
    local: bool


@dataclass(frozen=True)
class Stage:
    """One ``FROM`` with the images that its instructions take files from, each with its line number."""

    line: int
    image: str
    name: Optional[str]
    sources: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Dockerfile:
    """Global arguments (line, name, default or None) and stages, in the order of the file."""

    arguments: tuple[tuple[int, str, Optional[str]], ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Bases:
    """What one build of a Dockerfile builds upon.

    :param final: what the built stage descends from; None for scratch.
    :param images: every pinned image that is named.
    """

    final: Optional[Pinned]
    images: tuple[Pinned, ...]


def pinned(reference: str) -> Optional[Pinned]:
    """A reference that names content, ``name[:tag]@sha256:<digest>`` or ``name:<image id>``; None for any other."""
    found = _BY_DIGEST.match(reference)
    if found:
        return Pinned(reference, found[1], found[2], local=False)
    found = _BY_ID.match(reference)
    return Pinned(reference, found[1], f"sha256:{found[2]}", local=True) if found else None


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile's text.

    :raises DriftguardError: it has no ``FROM``, or one that can't be read.
    """
    arguments: list[tuple[int, str, Optional[str]]] = []
    stages: list[Stage] = []
    for line, keyword, rest in _instructions(text):
        if keyword == "ARG" and not stages:
            arguments.extend(_declared(line, rest))
        elif keyword == "FROM":
            stages.append(_stage(line, rest))
        elif stages:
            sources = tuple((line, name) for name in _sources(keyword, rest))
            last = stages[-1]
            stages[-1] = Stage(last.line, last.image, last.name, last.sources + sources)
    if not stages:
        raise _error(1, "at least one FROM", "none", "commit the Dockerfile that builds the worker")
    return Dockerfile(tuple(arguments), tuple(stages))


def bases(dockerfile: Dockerfile, given: Mapping[str, str], target: Optional[str]) -> Bases:
    """What a build with these arguments and target builds upon.

    :param given: build arguments; they count where the file declares them before its first ``FROM``.
    :raises DriftguardError: an image isn't pinned, or there is no such target.
    """
    values = _values(dockerfile, given)
    origins: list[Optional[Pinned]] = []
    found: dict[str, Pinned] = {}
    for number, stage in enumerate(dockerfile.stages):
        earlier = _position(dockerfile.stages[:number], _expand(stage.line, stage.image, values))
        image = origins[earlier] if earlier is not None else _image(stage, values)
        origins.append(image)
        for each in (image, *_copied(dockerfile, stage, values)):
            if each is not None:
                found[each.reference] = each
    last = len(origins) - 1 if target is None else _position(dockerfile.stages, target)
    if last is None:
        raise _error(1, f"a stage named {target!r}", _names(dockerfile), "name one of its stages as target")
    return Bases(origins[last], tuple(found.values()))


def _image(stage: Stage, values: Mapping[str, str]) -> Optional[Pinned]:
    name = _expand(stage.line, stage.image, values)
    return None if name == SCRATCH else _demand(stage.line, "FROM", stage.image, name)


def _copied(dockerfile: Dockerfile, stage: Stage, values: Mapping[str, str]) -> Iterator[Pinned]:
    for line, source in stage.sources:
        name = _expand(line, source, values)
        if _position(dockerfile.stages, name) is None and not (name.isdigit() and int(name) < len(dockerfile.stages)):
            yield _demand(line, "from=", source, name)


def _demand(line: int, where: str, written: str, name: str) -> Pinned:
    found = pinned(name)
    if found is None:
        shown = f"{where} {written}" if written == name else f"{where} {written}, which is {name!r} here"
        raise _error(
            line, f"an image by digest ({PINNING}), an earlier stage, or scratch", shown,
            "pin it (docker buildx imagetools inspect IMAGE shows the digest), or write ARG BASE_IMAGE and "
            "FROM ${BASE_IMAGE} and give option base")
    return found


def _position(stages: Iterable[Stage], name: str) -> Optional[int]:
    found = [number for number, stage in enumerate(stages) if stage.name == name.lower()]
    return found[-1] if found else None


def _names(dockerfile: Dockerfile) -> str:
    return ", ".join(stage.name for stage in dockerfile.stages if stage.name) or "no named stage"


def _values(dockerfile: Dockerfile, given: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for line, name, default in dockerfile.arguments:
        if name in given:
            values[name] = given[name]
        elif default is not None:
            values[name] = _expand(line, default, values)
    return values


def _expand(line: int, text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, word = match[1] or match[2], match[3] or "", match[4] or ""
        known = values.get(name)
        there = known is not None and (known != "" or ":" not in operator)
        if operator.endswith("+"):
            return word if there else ""
        return known or "" if there or not operator else word

    result = _VARIABLE.sub(value, text)
    if "$" in _VARIABLE.sub("", text):
        raise _error(line, "a variable as $NAME, ${NAME}, ${NAME:-word} or ${NAME:+word}", text, "write it simpler")
    return result


def _declared(line: int, rest: str) -> list[tuple[int, str, Optional[str]]]:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise _error(line, "ARG NAME=value", f"ARG {rest} ({error})", "close the quotes") from error
    split = (word.partition("=") for word in words)
    return [(line, name, default if equals else None) for name, equals, default in split]


def _stage(line: int, rest: str) -> Stage:
    found = _FROM.match(rest)
    if not found:
        raise _error(line, "FROM image [AS name]", f"FROM {rest}", "mend the line")
    return Stage(line, found[1], found[2].lower() if found[2] else None, ())


def _sources(keyword: str, rest: str) -> Iterator[str]:
    flag = _FLAG.match(rest) if keyword in ("COPY", "ADD", "RUN") else None
    while flag:
        if flag[1]:
            yield flag[1].strip("\"'")
        for part in (flag[2] or "").split(","):
            if part.startswith("from="):
                yield part[len("from="):].strip("\"'")
        rest = rest[flag.end():]
        flag = _FLAG.match(rest)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    lines = enumerate(text.split("\n"), start=1)
    escape = _escape(text)
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = _joined(line, lines, escape)
        keyword, _space, rest = whole.strip().partition(" ")
        keyword = keyword.upper()
        if keyword in ("RUN", "COPY", "ADD"):
            _skip_documents(rest, lines)
        yield number, keyword, rest.strip()


def _joined(line: str, lines: Iterator[tuple[int, str]], escape: str) -> str:
    parts = []
    while line.rstrip().endswith(escape):
        parts.append(line.rstrip()[:-1])
        line = next((more for _number, more in lines if more.strip() and not more.lstrip().startswith("#")), "")
    return "".join([*parts, line]).replace("\t", " ")


def _skip_documents(rest: str, lines: Iterator[tuple[int, str]]) -> None:
    for word in rest.split():
        document = _HEREDOC.match(word)
        if document:
            next((line for _number, line in lines if line.lstrip("\t").rstrip() == document[1]), None)


def _escape(text: str) -> str:
    for line in text.split("\n"):
        found = _DIRECTIVE.match(line)
        if not found or found[1].lower() not in ("escape", "syntax", "check"):
            break  # after the first other line it is only a comment
        if found[1].lower() == "escape":
            return "`" if found[2] == "`" else "\\"
    return "\\"


def _error(line: int, expected: str, found: str, remedy: str) -> DriftguardError:
    return DriftguardError(f"Dockerfile, line {line}", expected, found, remedy)
