# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout refuses before it touches anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Collection, Mapping, Sequence

from .errors import DriftguardError
from .module_base import FailedResult
from .rollout_plan import Plan


def refuse_extras(subject: str, plan: Plan) -> None:
    """Refuse containers of the fleet that nobody asked for.

    :param subject: fleet and host, for the message; likewise below.
    :raises FailedResult: names them, carries the plan.
    """
    if plan.extras:
        named = ", ".join(f"{step.name} ({step.reason})" for step in plan.extras)
        raise FailedResult(
            DriftguardError(
                subject,
                "no container of the fleet beyond those that the inventory places here",
                named,
                "remove them (docker rm -f NAME), or deploy with -e worker_prune=true; nothing was touched",
            ),
            {"steps": [step.to_dict() for step in plan.steps], "extras": [step.to_dict() for step in plan.extras]},
        )


def refuse_others(subject: str, plan: Plan, services: Sequence[str]) -> None:
    """With some services named, nothing else may be due: the revision would say of the others what isn't so.

    :param services: those named, none for all. One that isn't placed here has its instances on other hosts.
    :raises DriftguardError: something is due for another.
    """
    asked = set(services)
    others = [step for step in plan.changes if step.service not in asked]
    if asked and others:
        raise DriftguardError(
            f"{subject}, worker_services",
            "nothing to do for services that weren't named",
            ", ".join(f"{step.name}: {step.action} ({step.reason})" for step in others),
            "name those too, or deploy the whole fleet",
        )


def check_needs(
    subject: str, services: Mapping[str, Mapping[str, Any]], networks: Collection[str], volumes: Collection[str],
) -> None:
    """Refuse what compose would only miss once the old containers are gone.

    :param networks: names of the networks on the engine; likewise volumes.
    :raises DriftguardError: names the service and the network, volume or path that isn't there.
    """
    for name, service in services.items():
        lacking = [f"network {network}" for network in service.get("networks", ()) if network not in networks]
        lacking += [f"volume {volume}" for volume in service.get("volumes", ()) if volume not in volumes]
        lacking += [f"path {path}" for path in service.get("paths", ()) if not Path(path).exists()]
        if lacking:
            raise DriftguardError(
                f"{subject}, service {name}",
                f"{lacking[0]} to be there",
                "none",
                "make it here, or mend worker_networks or the service's networks and volumes; nothing was touched",
            )
