# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules find in one service: its image, its version, its command, its secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional

from .audit_view import ServiceView
from .compose_checks import OPTION_VARIABLE
from .compose_variables import expand
from .dev_runners import find_runner
from .names import RESERVED_ENVIRONMENT
from .secret_names import is_secret_name, password_in_url, secret_in_command

_EXPECTED = "EXPECTED_GIT_SHA"


@dataclass(frozen=True)
class Hit:
    """Something that a rule found.

    :param path: keys below the service, for the line; empty for what is missing.
    :param detail: what was found, in words; never a secret's text.
    :param file: where it stands, when that is no compose file; with the line.
    """

    rule: str
    path: tuple[str, ...]
    detail: str
    file: Optional[str] = None
    line: Optional[int] = None


def image_hits(service: ServiceView) -> Iterator[Hit]:
    """The image is named by what can't change."""
    path = ("image",)
    found = service.expanded(service.value("image"))
    if not service.value("image"):
        if service.value("build"):
            yield Hit("image-untagged", ("build",), "what is built here is named <project>-<service>:latest by Compose")
        return
    name, _at, digest = found.text.partition("@")
    if digest.startswith("sha256:") or name.startswith("sha256:"):
        return
    # A tag that only a variable gives is not known; a default that says latest is.
    tag = name.rpartition("/")[2].partition(":")[2]
    if found.unset and not tag:
        yield Hit("image-variable", path, f"the image depends on {_names(found.unset)}, without a value here")
    elif tag == "latest":
        by = f", the value of {_names(found.used)}" if found.used else ""
        yield Hit("image-latest", path, f"the tag is latest{by}")
    elif not tag:
        yield Hit("image-untagged", path, "the image has neither tag nor digest")
    else:
        yield Hit("image-tag", path, "the image has a tag and no digest")


def version_hits(service: ServiceView) -> Iterator[Hit]:
    """The version comes from the image, and a guard is told which one is expected."""
    environment = service.pairs("environment")
    for name in RESERVED_ENVIRONMENT:
        if name in environment:
            yield Hit("git-sha-set", ("environment", name), f"{name} in the environment")
        elif name in service.from_files:
            _value, file, line = service.from_files[name]
            yield Hit("git-sha-set", ("env_file", name), f"{name} in an env file", file, line)
        if "build" in service.raw and name in service.pairs("build", "args"):
            yield Hit("git-sha-argument", ("build", "args", name), f"build argument {name}")
    if _EXPECTED not in environment and _EXPECTED not in service.from_files:
        yield Hit("expected-sha", (), f"no {_EXPECTED} in the environment")


def runner_hits(service: ServiceView) -> Iterator[Hit]:
    """The built program runs, not a development runner."""
    for key in ("entrypoint", "command"):
        runner = find_runner(service.words(key))
        if runner:
            yield Hit("development-runner", (key,), f"{runner} in {key}")
    options = service.pairs("environment").get(OPTION_VARIABLE)
    runner = find_runner([service.expanded(options).text]) if options else None
    if runner:
        yield Hit("development-runner", ("environment", OPTION_VARIABLE), f"{runner} in {OPTION_VARIABLE}")


def secret_hits(service: ServiceView) -> Iterator[Hit]:
    """No secret where docker inspect, the image's history or this file shows it."""
    for path, place in ((("environment",), "environment"), (("build", "args"), "build arguments")):
        for name, value in service.pairs(*path).items():
            kind = _secret_kind(name, value)
            if kind:
                yield Hit(kind, (*path, name), f"{name} in the {place}")
    own = service.pairs("environment")
    for name, (value, file, line) in service.from_files.items():
        if name not in own and _secret_kind(name, value):
            yield Hit("secret-in-environment", ("env_file", name), f"{name} in an env file", file, line)
    for key in ("command", "entrypoint"):
        if secret_in_command(service.words(key)):
            yield Hit("secret-in-clear", (key,), f"a URL with a password, or an option with a secret, in {key}")


def _secret_kind(name: str, value: Optional[str]) -> str:
    """The rule that a variable breaks, or an empty text."""
    if value is None:
        return "secret-in-environment" if is_secret_name(name) else ""
    # Without any values: what is left was written in the file itself.
    written = expand(value, {})
    literal = password_in_url(written.text)
    if literal:
        return "secret-in-clear"
    if password_in_url(value):
        return "secret-in-environment"
    if not is_secret_name(name) or written.text.startswith("/run/secrets/"):
        return ""
    if _is_text(written.text):
        return "secret-in-clear"
    return "secret-in-environment" if written.used else ""


def _is_text(value: str) -> bool:
    """Whether it may be a secret: not empty, and no switch or small number."""
    return bool(value) and value.lower() not in ("true", "false", "yes", "no", "none", "null", "0", "1")


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5])
