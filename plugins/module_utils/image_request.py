# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images of a release are asked to be: the module's options, validated."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Mapping, Optional

from .errors import DriftguardError
from .image_dockerfile import PINNING, pinned
from .names import RESERVED_ENVIRONMENT, VARIANT_PATTERN, repository_of
from .release_info import REPOSITORY_PATTERN
from .untrusted import check_fleet, clean

VARIANT_KEYS = ("build_args", "target", "must_contain", "must_not_contain", "max_size")
_ARGUMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_SECRET_ID = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_STAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
# dpkg and apk package names and names of commands; a path begins with a slash
_CONTENT = re.compile(r"^(?:/[^\x00-\x1f\x7f]*|[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127})\Z")
_SIZE = re.compile(r"^(\d{1,12})(?:\.(\d{1,3}))? ?(k|m|g)?(i)?b?\Z", re.IGNORECASE)
_BASE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/@+,=-]{0,254}\Z")  # what the guards read in image.json
_STAND_IN = "driftguard.local/base:" + "0" * 64
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}
_REGISTRY = re.compile(r"^(?:localhost|[^/]*[.:][^/]*)/")


@dataclass(frozen=True)
class Base:
    """The image that a Dockerfile is told to build upon.

    :param argument: name of the build argument that carries the reference.
    :param known: false for a base that is still to be made, in check mode; its reference is a stand-in then.
    """

    name: str
    reference: str
    argument: str
    known: bool = True


@dataclass(frozen=True)
class Checks:
    """What an image must fulfil before it becomes part of a release; the size in bytes."""

    must_contain: tuple[str, ...] = ()
    must_not_contain: tuple[str, ...] = ()
    max_size: Optional[int] = None


@dataclass(frozen=True)
class VariantSpec:
    """One image flavour as asked for; its build arguments include those that all variants share."""

    name: str
    repository: str
    build_args: dict[str, str] = field(default_factory=dict)
    target: Optional[str] = None
    checks: Checks = Checks()


@dataclass(frozen=True)
class Request:
    """All that the module was asked for.

    :param path: git checkout; revision a commit-ish; context and dockerfile relative paths within the commit.
    :param secrets: file on this machine by id of the secret.
    :param timeout: seconds for one build or one push.
    """

    fleet: str
    path: str
    revision: str
    context: str
    dockerfile: str
    base: Optional[Base]
    secrets: dict[str, str]
    variants: dict[str, VariantSpec]
    latest: bool
    push: bool
    builder: str
    timeout: int

    @classmethod
    def from_options(cls, options: Mapping[str, Any], check_mode: bool = False) -> Request:
        """Validate the module's options.

        :param check_mode: the base may be one that is still to be made.
        :raises DriftguardError: the option that doesn't fit, with what would.
        """
        fleet = check_fleet(options["fleet"])
        source = options["source"]
        base = _base(options["base"], check_mode)
        repository = _repository(options["repository"] or f"{fleet}-worker", options["push"])
        shared = _arguments("build_args", options["build_args"], base)
        return cls(
            fleet=fleet, path=source["path"], revision=source["revision"],
            context=_relative("source.context", source["context"]),
            dockerfile=_relative("source.dockerfile", source["dockerfile"]),
            base=base, secrets=_secrets(options["secrets"]),
            variants=_variants(options["variants"], repository, shared, base),
            latest=options["latest"], push=options["push"], builder=options["builder"],
            timeout=_timeout(options["timeout"]))


def size(value: Any) -> int:
    """Bytes from ``300MB``, ``1.5 GiB`` or a number; units without ``i`` are decimal, as the engine shows them.

    :raises ValueError: not a size.
    """
    match = _SIZE.match(str(value).strip()) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if match is None:
        raise ValueError(value)
    whole, part, unit, binary = match.groups()
    return int(float(f"{whole}.{part or 0}") * (1024 if binary else 1000) ** _POWERS[(unit or "").lower()])


def _wrong(option: str, expected: str, found: Any, remedy: str) -> DriftguardError:
    return DriftguardError(f"option {option}", expected, clean(repr(found)), remedy)


def _relative(option: str, path: str) -> str:
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts or not path.isprintable():
        raise _wrong(option, "a relative path within the commit, without ..", path, "name it from source.path on")
    return str(PurePosixPath(path))


def _timeout(seconds: int) -> int:
    if not 1 <= seconds <= 86400:
        raise _wrong("timeout", "seconds from 1 to 86400", seconds, "give the time that one build may take")
    return seconds


def _base(option: Optional[Mapping[str, Any]], check_mode: bool) -> Optional[Base]:
    if option is None:
        return None
    known = bool(option["reference"]) or not check_mode
    found = pinned(option["reference"] if known else _STAND_IN)
    if found is None:
        raise _wrong(
            "base.reference", PINNING, option["reference"], "name the base by digest: a tag can move to other content")
    if not _ARGUMENT.match(option["arg"]) or option["arg"] in RESERVED_ENVIRONMENT:
        raise _wrong(
            "base.arg", "the name of a build argument", option["arg"], "use the name of the Dockerfile's own ARG")
    if option["name"] and not _BASE_NAME.match(option["name"]):
        raise _wrong(
            "base.name", "letters, digits and ._:/@+,=-", option["name"], "use the name that people know the base by")
    return Base(option["name"] or found.name, found.reference, option["arg"], known)


def _repository(repository: str, push: bool) -> str:
    if not REPOSITORY_PATTERN.match(repository):
        raise _wrong(
            "repository", "a lower-case repository name without tag or digest", repository,
            "use a name such as demo-worker")
    if push and not _REGISTRY.match(repository):
        raise _wrong(
            "repository", "a name that begins with its registry, since push is true", repository,
            f"name the registry: registry.example.org/{repository}")
    return repository


def _arguments(option: str, values: Any, base: Optional[Base]) -> dict[str, str]:
    reserved = (*RESERVED_ENVIRONMENT, *((base.argument,) if base else ()))
    if not isinstance(values, Mapping):
        raise _wrong(option, "a dictionary of build arguments", values, "write NAME: value")
    for name in values:
        if name in reserved:
            raise _wrong(
                f"{option}.{name}", "only arguments of the application", name,
                "remove it: it comes from the commit, the time of the build or option base")
        if not isinstance(name, str) or not _ARGUMENT.match(name):
            raise _wrong(option, "names of letters, digits and underscores", name, "rename the argument")
    return {str(name): _scalar(f"{option}.{name}", value) for name, value in sorted(values.items())}


def _scalar(option: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise _wrong(option, "a string, a number or a boolean", value, "quote the value")
    return str(value)


def _secrets(rows: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        if not _SECRET_ID.match(row["id"]) or row["id"] in found:
            raise _wrong("secrets", "a unique id of letters, digits, dots and dashes", row["id"], "rename the secret")
        if not row["src"].startswith("/") or not row["src"].isprintable() or set(row["src"]) & set(',"'):
            raise _wrong(
                f"secrets.{row['id']}", "an absolute path without comma and quote", row["src"],
                "move the file to a plain path")
        found[row["id"]] = row["src"]
    return found


def _variants(
    values: Mapping[Any, Any], repository: str, shared: Mapping[str, str], base: Optional[Base],
) -> dict[str, VariantSpec]:
    if not values:
        raise _wrong("variants", "at least one variant", values, "write variants: {base: {}}")
    return {
        name: _variant(name, values[name] or {}, repository_of(repository, str(name)), shared, base)
        for name in sorted(values, key=str)}


def _variant(
    name: Any, values: Any, repository: str, shared: Mapping[str, str], base: Optional[Base],
) -> VariantSpec:
    option = f"variants.{name}"
    if not isinstance(name, str) or not VARIANT_PATTERN.match(name):
        raise _wrong("variants", "names of lower-case letters and digits, a letter first", name, "rename the variant")
    if not isinstance(values, Mapping) or set(values) - set(VARIANT_KEYS):
        odd = sorted(map(str, set(values) - set(VARIANT_KEYS))) if isinstance(values, Mapping) else values
        raise _wrong(
            option, f"a dictionary with keys of {', '.join(VARIANT_KEYS)}", odd, "remove or rename what is unknown")
    target = values.get("target")
    if target is not None and not (isinstance(target, str) and _STAGE.match(target)):
        raise _wrong(
            f"{option}.target", "the name of a stage of the Dockerfile", target, "name a stage, or leave it out")
    own = _arguments(f"{option}.build_args", values.get("build_args") or {}, base)
    return VariantSpec(name, repository, {**shared, **own}, target, _checks(option, values))


def _checks(option: str, values: Mapping[str, Any]) -> Checks:
    limit = values.get("max_size")
    try:
        most = None if limit is None else size(limit)
    except ValueError:
        raise _wrong(
            f"{option}.max_size", "a size such as 300MB", limit, "use kB, MB, GB, KiB, MiB or GiB") from None
    return Checks(
        _contents(f"{option}.must_contain", values.get("must_contain")),
        _contents(f"{option}.must_not_contain", values.get("must_not_contain")), most)


def _contents(option: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values or [], list):
        raise _wrong(option, "a list", values, "write a list of paths, commands and packages")
    for value in values or []:
        if not isinstance(value, str) or not _CONTENT.match(value):
            raise _wrong(option, "an absolute path, or the name of a command or package", value, "mend the entry")
    return tuple(sorted(set(values or [])))
