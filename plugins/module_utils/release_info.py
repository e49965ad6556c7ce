# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release as one module hands it to the next, and as ``release.json`` keeps it.

:meth:`Release.to_dict` is plain data with exactly these keys; :meth:`Release.from_dict` refuses any other shape::

    {"fleet": "demo",
     "release_id": "0123456789ab.89abcdef0123",       first 12 hex of the SHA, 12 hex of the hash of the inputs
     "sha": "<40 hex>",
     "created": "2026-01-02T03:04:05Z",               the oldest stamp among its images
     "variants": {"base": {
        "variant": "base",
        "image": "sha256:<id>" | "repo@sha256:<digest>",   what a compose file says: by digest once pushed
        "id": "sha256:<64 hex>",                           as the engine that built it says
        "digest": "sha256:<64 hex>" | null,                of the pushed manifest; null without a registry
        "repository": "demo-worker",                       with the registry's name where there is one
        "tags": ["demo-worker:<40 hex>", "demo-worker:<7 hex>"],
        "size": 144000000,                                 bytes
        "entrypoint": [], "cmd": ["python3", "-m", "demo"],
        "working_dir": "/app",                             "/" where the image has none
        "uid": 10001, "gid": 10001,                        numeric, resolved inside the image
        "guard": "python" | "sh", "guard_program": "/usr/bin/python3",
        "volumes": ["/var/lib/demo"],
        "healthcheck": false}}}
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Callable, Mapping, Optional, Pattern, Tuple

from .errors import DriftguardError
from .names import FLEET_PATTERN, IMAGE_ID_PATTERN, RELEASE_PATTERN, SHA_PATTERN, VARIANT_PATTERN

GUARD_PYTHON = "python"
GUARD_SH = "sh"
GUARDS = (GUARD_PYTHON, GUARD_SH)

TIME_PATTERN = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
# distribution/reference grammar: optional registry host with port, then lower-case path components
REPOSITORY_PATTERN = re.compile(
    r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
MAX_ID = 2**32 - 2  # the largest uid or gid; the next one means "unchanged" to chown(2)
_REMEDY = "build the release again with worker_image and hand over what it returns, unedited"


@dataclass(frozen=True)
class VariantImage:
    """One image of a release: how to name it, and what a compose file must know to put the guard before its program."""

    variant: str
    image: str
    id: str
    digest: Optional[str]
    repository: str
    tags: list[str]
    size: int
    entrypoint: list[str]
    cmd: list[str]
    working_dir: str
    uid: int
    gid: int
    guard: str
    guard_program: str
    volumes: list[str]
    healthcheck: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the module's docstring."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any, subject: str = "image of a release") -> VariantImage:
        """Validate untrusted data.

        :param subject: what the data are of, for the message.
        :raises DriftguardError: a key is missing, unknown, or holds something else than documented.
        """
        image = cls(**_validated(data, _VARIANT_RULES, subject))
        named = compose_reference(image.id, image.repository, image.digest)
        if image.image != named:
            raise DriftguardError(f"{subject}: image", repr(named), repr(image.image), _REMEDY)
        return image


@dataclass(frozen=True)
class Release:
    """One commit built into one image per variant."""

    fleet: str
    release_id: str
    sha: str
    created: str
    variants: dict[str, VariantImage]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the module's docstring; variants in the order of their names."""
        return {
            "fleet": self.fleet, "release_id": self.release_id, "sha": self.sha, "created": self.created,
            "variants": {name: self.variants[name].to_dict() for name in sorted(self.variants)},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Release:
        """Validate untrusted data, such as a ``release.json`` read back from a host.

        :raises DriftguardError: a key is missing, unknown, or holds something else than documented.
        """
        plain = _validated(data, _RELEASE_RULES, "release")
        subject = f"release {plain['release_id']} of fleet {plain['fleet']}"
        if not plain["release_id"].startswith(plain["sha"][:12] + "."):
            raise DriftguardError(
                subject, f"an id that begins with {plain['sha'][:12]}", repr(plain["release_id"]), _REMEDY)
        images = {
            name: VariantImage.from_dict(value, f"{subject}, variant {name}")
            for name, value in plain["variants"].items()}
        for name, image in images.items():
            if image.variant != name:
                raise DriftguardError(f"{subject}, variant {name}", f"the name {name!r}", repr(image.variant), _REMEDY)
        return cls(**{**plain, "variants": images})


def compose_reference(image_id: str, repository: str, digest: Optional[str]) -> str:
    """How a compose file names an image: ``repository@digest`` once pushed, else its id on the engine that has it."""
    return f"{repository}@{digest}" if digest else image_id


_Rule = Tuple[str, Callable[[Any], bool]]


def _validated(data: Any, rules: Mapping[str, _Rule], subject: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise DriftguardError(subject, "a dictionary", type(data).__name__, _REMEDY)
    odd = sorted(set(map(str, data)) ^ set(rules))
    if odd:
        kind = "missing" if odd[0] in rules else "unknown"
        raise DriftguardError(subject, f"the keys {', '.join(rules)}", f"{kind} key {odd[0]!r}", _REMEDY)
    for key, (expected, accepts) in rules.items():
        if not accepts(data[key]):
            raise DriftguardError(f"{subject}: {key}", expected, repr(data[key])[:200], _REMEDY)
    return dict(data)


def _like(pattern: Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.match(value) is not None


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)


def _paths(value: Any) -> bool:
    return _strings(value) and all(_path(item) for item in value)


def _path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _number(highest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _variants(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(map(_like(VARIANT_PATTERN), value))


_RELEASE_RULES: dict[str, _Rule] = {
    "fleet": ("a fleet name such as demo", _like(FLEET_PATTERN)),
    "release_id": ("12 hex, a dot and 12 hex", _like(RELEASE_PATTERN)),
    "sha": ("a full SHA of 40 hex", _like(SHA_PATTERN)),
    "created": ("a time such as 2026-01-02T03:04:05Z", _like(TIME_PATTERN)),
    "variants": ("a dictionary of at least one variant by name", _variants),
}
_VARIANT_RULES: dict[str, _Rule] = {
    "variant": ("a variant name such as base", _like(VARIANT_PATTERN)),
    "image": ("sha256:<id> or repository@sha256:<digest>", lambda value: isinstance(value, str)),
    "id": ("sha256: and 64 hex", _like(IMAGE_ID_PATTERN)),
    "digest": ("sha256: and 64 hex, or null", lambda value: value is None or _like(IMAGE_ID_PATTERN)(value)),
    "repository": ("a repository name such as demo-worker", _like(REPOSITORY_PATTERN)),
    "tags": ("a list of strings", _strings),
    "size": ("a number of bytes", _number(2**63 - 1)),
    "entrypoint": ("a list of strings", _strings),
    "cmd": ("a list of strings", _strings),
    "working_dir": ("an absolute path", _path),
    "uid": ("a numeric user id", _number(MAX_ID)),
    "gid": ("a numeric group id", _number(MAX_ID)),
    "guard": ("python or sh", lambda value: isinstance(value, str) and value in GUARDS),
    "guard_program": ("an absolute path", _path),
    "volumes": ("a list of absolute paths", _paths),
    "healthcheck": ("true or false", lambda value: isinstance(value, bool)),
}
