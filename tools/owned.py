# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What on a machine belongs to the demo and the tests, and so may be removed by ``make clean``.

Everything else on the engine and under /opt/driftguard is somebody's: a fleet of another name, its images, its base.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils import names

#: Names of fleets that the demos, the molecule scenarios and tests/support/fleet.py make.
FLEETS = re.compile(r"(demo|demo-lab|molecule|t[0-9a-f]{8})\Z")
#: On what is no part of a fleet (Redis, its network and volume): the fleet it was made for. Never on an image, whose
#: labels pass on to what others build from it.
MADE_FOR = "io.driftguard.made-for"
#: On containers, networks and volumes of tests that make no fleet.
TEST = "io.driftguard.test"
MARKS = (MADE_FOR, TEST)
#: What has no registry and is built on the machine itself.
LOCAL_IMAGES = "driftguard.local/"
HOST_PLACES = (names.HOST_ROOT + "/{}", "/etc/driftguard/redis/{}-redis")
MACHINE_PLACES = ("/var/cache/driftguard",)
#: Beside what this machine's engine was told by a lab to trust.
LAB_MARKS = "/etc/docker/certs.d/*/driftguard-lab"
#: In this order; each goes when nothing is left in it.
EMPTY_PARENTS = (names.HOST_ROOT, "/etc/driftguard/redis", "/etc/driftguard")


@dataclass(frozen=True)
class Thing:
    """A container, image, network or volume.

    :param handle: what removes it: an id, or a name where there may be several for one id.
    :param labels: its own labels (:func:`own_labels`).
    """

    kind: str
    handle: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Owner:
    """Whose things are asked for.

    :param only: one fleet; empty for all that the demo and the tests make.
    """

    only: str = ""

    def has_fleet(self, fleet: str) -> bool:
        """Whether a fleet is meant."""
        return fleet == self.only if self.only else bool(FLEETS.match(fleet))

    def has(self, thing: Thing) -> bool:
        """Whether a thing was made by the demo or the tests. The fleet it names decides alone, where it names one."""
        for label, form in ((names.LABEL_FLEET, "{}"), (names.LABEL_COMPOSE_PROJECT, names.compose_project("{}"))):
            fleet = _inner(thing.labels.get(label, ""), form)
            if fleet:
                return self.has_fleet(fleet)
        if thing.kind == "image":
            return not self.only and thing.name.startswith(LOCAL_IMAGES)
        return self.has_fleet(thing.labels.get(MADE_FOR, "")) or (not self.only and TEST in thing.labels)

    def has_place(self, place: Path) -> bool:
        """Whether a directory below /opt/driftguard or the like is a fleet's that is meant."""
        return any(self.has_fleet(_inner(str(place), form)) for form in HOST_PLACES)


def own_labels(
    labels: Mapping[str, str], of_image: Mapping[str, str], of_volumes: Sequence[Mapping[str, str]],
) -> dict[str, str]:
    """A container's labels, its marks only where they are no image's: its own, or those of the volumes it mounts."""
    own = {key: value for key, value in labels.items() if key not in MARKS or of_image.get(key) != value}
    marks = {key: value for volume in of_volumes for key, value in volume.items() if key in MARKS}
    return {**own, **marks}


def _inner(text: str, form: str) -> str:
    """What stands for ``{}`` when a text has a form; empty when it doesn't."""
    before, after = form.split("{}")
    inner = text[len(before):len(text) - len(after)]
    return inner if text == f"{before}{inner}{after}" else ""


def foreign_fleets(things: Sequence[Thing]) -> list[str]:
    """Names of fleets on this engine that neither the demo nor a test made."""
    fleets = {thing.labels.get(names.LABEL_FLEET, "") for thing in things}
    return sorted(fleet for fleet in fleets if fleet and not FLEETS.match(fleet))
