# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a compose file is written: it would only fail, or lie, once the old containers are gone."""

from __future__ import annotations

from typing import Iterable, Mapping

from .code_paths import code_paths, covered_code
from .dev_runners import find_runner
from .errors import DriftguardError
from .fleet_spec import Service
from .guard_command import SUPERVISE
from .release_info import GUARD_PYTHON, VariantImage

# The guards read it for development runners too.
OPTION_VARIABLE = "NODE_OPTIONS"


def check_against_image(fleet: str, service: Service, image: VariantImage) -> None:
    """Refuse a service that its image can't be.

    :raises DriftguardError: no command, a supervisor without Python, a development runner, or a mount (also the
        image's ``VOLUME``) over the code.
    """
    subject = f"fleet {fleet}, service {service.name}"
    command = [*image.entrypoint, *(service.command or image.cmd)]
    if not command:
        raise DriftguardError(
            f"{subject}, key command", "a command here or in the image", "neither",
            "set command, or give the image a CMD")
    if service.guard == SUPERVISE and image.guard != GUARD_PYTHON:
        raise DriftguardError(
            f"{subject}, key guard", "exec, since the image has no full Python", SUPERVISE,
            "set guard: exec, or put Python 3.8 or later with its standard library into the image")
    _check_runners(subject, {
        "key command": command, f"environment {OPTION_VARIABLE}": [service.environment.get(OPTION_VARIABLE, "")]})
    targets = [*(mount.target for mount in service.volumes), *service.tmpfs, *image.volumes]
    paths = code_paths(image.working_dir, [*command, *image.cmd], service.environment)
    for target in targets:
        covered = covered_code(target, paths)
        if covered:
            raise DriftguardError(
                f"{subject}, mount {target}", f"no mount over the code in {covered}", "one that would cover it",
                "mount data elsewhere, such as below /data: over the code it would hide which code runs. A path that "
                "the command names counts as code; write an argument for data as --option=/path")


def _check_runners(subject: str, texts: Mapping[str, list[str]]) -> None:
    for key, words in texts.items():
        runner = find_runner(words)
        if runner:
            raise DriftguardError(
                f"{subject}, {key}", "the built program, without a development runner", f"{runner} in {key}",
                "name the built program, for example node dist/worker.js: a runner may run other code than was checked")


def refuse_secrets(fleet: str, services: Iterable[Service], secrets: Mapping[str, str]) -> None:
    """Refuse a secret's text where everyone may read it: ``docker inspect`` shows environments and commands.

    :param secrets: name → content.
    :raises DriftguardError: names the variable or the key and the secret, never its content.
    """
    for service in services:
        health = service.healthcheck.test if service.healthcheck else ()
        places = {f"environment {name}": value for name, value in service.environment.items()}
        places.update({"key command": "\n".join(service.command), "key healthcheck": "\n".join(health)})
        for place, text in places.items():
            for name in sorted(secrets):
                if secrets[name] in text:
                    raise DriftguardError(
                        f"fleet {fleet}, service {service.name}, {place}", "no secret, since docker inspect shows it",
                        f"the content of secret {name}",
                        f"list {name} under secrets and let the worker read the file /run/secrets/{name}")
