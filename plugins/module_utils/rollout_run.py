# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a plan on one host: stop and remove what must go, let compose create what is missing."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Mapping, Sequence
from urllib.parse import quote

from . import processes
from .attendance import SafePoint
from .engine import Engine
from .errors import DriftguardError
from .fleet_containers import Container
from .fleet_spec import MIN_SECRET_LENGTH
from .host_files import write_atomic
from .names import LABEL_COMPOSE_PROJECT
from .rollout_plan import Plan
from .rollout_progress import STOPPING
from .side_by_side import side_by_side

AT_ONCE = 8
COMPOSE_TIMEOUT = 300.0
# Variables that would make compose read other files or projects than the ones named.
COMPOSE_VARIABLES = ("COMPOSE_",)


def carry_out(
    engine: Engine,
    plan: Plan,
    project: str,
    compose_file: Path,
    graces: Mapping[str, int],
    safe_point: SafePoint,
    lock: int,
    note: Path,
) -> None:
    """Bring a host from where it is to the plan's end.

    Stops first, then creates. Containers to go are removed by id and only missing ones are created, so that
    replicas that are right stay untouched, and a run that is killed at any point leaves nothing
    that the next plan can't see. What the plan lets go late is left alone here.

    :param graces: service → stop grace period of the new revision in seconds; the longer of old and new one counts,
        since what is being stopped is the old worker.
    :param lock: descriptor of the host's lock. Compose inherits it: when this module is killed, compose works on, and
        the next run must wait for its end.
    :param note: file that names the containers that are being stopped, see :func:`remove_containers`.
    :raises DriftguardError: the engine or compose failed, or this deployment was superseded.
    """
    services = plan.services_to_start()
    if services:
        # Whatever compose itself has against the file, it says before anything is stopped.
        compose(
            project,
            compose_file,
            ["config", "--quiet"],
            "mend the inventory and render the file again; nothing was touched",
            (lock,),
            safe_point,
        )
    safe_point()
    remove_containers(engine, plan.leaving(), graces, safe_point, note)
    if services:
        safe_point()
        scales = [word for service, count in plan.scales().items() for word in ("--scale", f"{service}={count}")]
        compose(
            project,
            compose_file,
            ["up", "--detach", "--no-recreate", "--no-deps", "--pull", "never", *scales, *services],
            "see the compose file and the engine's log on this host, then deploy again",
            (lock,),
            safe_point,
        )


def remove_containers(
    engine: Engine,
    containers: Sequence[Container],
    graces: Mapping[str, int],
    safe_point: SafePoint,
    note: Path,
) -> None:
    """Stop and remove containers side by side, each with its grace period.

    :param note: names them by id until all are gone. The engine calls a container running until its grace period is
        over, also when whoever stops it was killed.
    """

    def leave(container: Container) -> None:
        safe_point()
        safe_point.tell(STOPPING, container.service, container.name)
        engine.stop(container.id, max(container.stop_timeout, graces.get(container.service, 0)))
        safe_point()
        engine.remove(container.id)

    if not containers:
        return
    write_atomic(note, "".join(f"{container.id}\n" for container in containers), 0o600)
    side_by_side([partial(leave, container) for container in containers], AT_ONCE, safe_point)
    note.unlink(missing_ok=True)


def compose(
    project: str, compose_file: Path, arguments: Sequence[str], remedy: str, keep_open: tuple[int, ...],
    safe_point: SafePoint,
) -> None:
    """Run compose on exactly one file, free of the caller's COMPOSE_* variables and of any ``.env``.

    Where this run may go on no more, compose is told to end: what it leaves half made the next plan heals.
    """
    one_file = ["--project-directory", str(compose_file.parent), "--env-file", "/dev/null", "--file", str(compose_file)]
    _compose(project, [*one_file, *arguments], remedy, keep_open, safe_point)


def remove_project(project: str, keep_open: tuple[int, ...], safe_point: SafePoint) -> None:
    """Remove the networks that compose made for a project.

    :param keep_open: as of :func:`carry_out`; likewise the safe point.
    """
    remedy = f"see docker network ls --filter label={LABEL_COMPOSE_PROJECT}={project}; remove those by hand"
    _compose(project, ["down"], remedy, keep_open, safe_point)


def _compose(
    project: str, arguments: Sequence[str], remedy: str, keep_open: tuple[int, ...], safe_point: SafePoint,
) -> None:
    done = processes.run(
        [_docker(), "compose", "--ansi", "never", "--progress", "quiet", "--project-name", project, *arguments],
        # Without a file it would look for one here and above.
        cwd=Path("/"),
        without=COMPOSE_VARIABLES,
        keep_open=keep_open,
        timeout=COMPOSE_TIMEOUT,
        meanwhile=safe_point,
    )
    processes.checked(done, remedy)


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise DriftguardError(
            "Docker command line",
            "docker with the compose plugin in PATH",
            "no docker",
            "run playbooks/bootstrap.yml on this host",
        )
    return found


def secret_values(root: Path) -> list[str]:
    """Contents of the fleet's secret files on this host, for masking; what can't be read can't be shown either.

    :returns: each as it is, line by line (a log has a key's lines one by one),
    and as URLs and JSON write it; the longest
        first, since one secret may begin with another.
    """
    found: set[str] = set()
    for path in (root / "secrets").glob("[0-9]*/*"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for part in (text, *text.splitlines()):
            plain = part.strip()
            found.update((plain, quote(plain, safe=""), quote(plain), json.dumps(plain)[1:-1]))
    return sorted((value for value in found if len(value) >= MIN_SECRET_LENGTH), key=lambda value: (-len(value), value))


def masked(value: Any, secrets: Sequence[str]) -> Any:
    """A copy of a result without the secrets' values, and with control characters made visible."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "********")
        return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in value)
    if isinstance(value, list):
        return [masked(element, secrets) for element in value]
    if isinstance(value, dict):
        return {key: masked(element, secrets) for key, element in value.items()}
    return value
