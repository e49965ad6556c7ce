# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make clean``: remove everything that the demo and the tests made on this machine, and only that (tools/owned.py).

Stays: the engine and the system packages (other things on the machine may use them by now) and the engine's build
cache, which doesn't say whose it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterable, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .engine import docker
from .owned import (
    EMPTY_PARENTS,
    HOST_PLACES,
    LAB_MARKS,
    LOCAL_IMAGES,
    MACHINE_PLACES,
    Owner,
    Thing,
    foreign_fleets,
    own_labels,
)
from .paths import COLLECTIONS, ROOT
from .processes import as_root
from .steps import report

Labels = dict[str, str]
LISTS = {
    "container": ("container", "ls", "--all", "--quiet", "--no-trunc"),
    "network": ("network", "ls", "--quiet", "--no-trunc"),
    "volume": ("volume", "ls", "--quiet"),
    "image": ("image", "ls", "--quiet", "--no-trunc"),
}
REMOVALS = {
    "container": ("container", "rm", "--force", "--volumes"),
    "network": ("network", "rm"),
    "volume": ("volume", "rm", "--force"),
    "image": ("image", "rm"),
}
CHECKOUT = (
    ".ansible", ".cache", ".driftguard", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "build",
    "changelogs/.plugin-cache.yaml", ".venv")


def main() -> int:
    """Remove; exit status 1 when something that is ours could not be removed."""
    parser = argparse.ArgumentParser(prog="tools/python tools.clean", description=__doc__)
    parser.add_argument("--fleet", default="", help="only what belongs to this fleet; the checkout is left alone")
    owner = Owner(parser.parse_args().fleet)
    try:
        left = _clean(owner, docker())
    except DriftguardError as error:
        report(error)
        return 1
    for line in left:
        print(f"FAILED   {line}", file=sys.stderr)
    return 1 if left else 0


def _clean(owner: Owner, command: Sequence[str]) -> list[str]:
    """Remove what is ours; what could not be removed and why.

    :param command: reaches the engine; empty when there is none.
    """
    things = _things(command) if command else []
    others = foreign_fleets(things)
    shared = [] if others or owner.only else [Path(place) for place in MACHINE_PLACES]
    left = [line for thing in things if owner.has(thing) for line in _clean_thing(command, thing, others)]
    left += _remove_paths([*_fleet_paths(owner), *shared, *_trusted(owner)])
    for parent in (Path(place) for place in EMPTY_PARENTS if Path(place).is_dir()):
        _run(as_root(["rmdir", "--ignore-fail-on-non-empty", str(parent)]))  # never what somebody put there meanwhile
    return left if owner.only else [*left, *_remove_paths(_checkout_paths())]


def _clean_thing(command: Sequence[str], thing: Thing, others: Sequence[str]) -> list[str]:
    if others and thing.kind == "image" and thing.name.startswith(LOCAL_IMAGES):
        print(f"kept     image {thing.name}: {', '.join(others)} may be built on it")
        return []
    return _remove_thing(command, thing)


def _things(command: Sequence[str]) -> list[Thing]:
    """All containers, networks, volumes and images of the engine, in the order in which they can be removed."""
    images, networks, volumes = (_inspect(command, kind) for kind in ("image", "network", "volume"))
    of_image = {facts["Id"]: _labels(facts) for facts in images}
    of_volume = {facts["Name"]: _labels(facts) for facts in volumes}
    things = [_container(facts, of_image, of_volume) for facts in _inspect(command, "container")]
    for kind, found in (("network", networks), ("volume", volumes)):
        things += [Thing(kind, facts["Name"], facts["Name"], _labels(facts)) for facts in found]
    for facts in images:  # an image has to be removed by each of its names; the last one takes the image with it
        tags = facts.get("RepoTags") or [facts["Id"]]
        things += [Thing("image", tag, tag, _labels(facts)) for tag in tags]
    return things


def _container(facts: dict[str, Any], of_image: dict[str, Labels], of_volume: dict[str, Labels]) -> Thing:
    mounted = [of_volume.get(mount.get("Name", ""), {}) for mount in facts["Mounts"]]
    labels = own_labels(_labels(facts), of_image.get(facts["Image"], {}), mounted)
    return Thing("container", facts["Id"], facts["Name"].lstrip("/"), labels)


def _inspect(command: Sequence[str], kind: str) -> list[dict[str, Any]]:
    handles = sorted(set(_run([*command, *LISTS[kind]]).stdout.split()))
    # Whatever it says: one that is gone by now makes the exit status 1, and the others are still told.
    return list(json.loads(_run([*command, kind, "inspect", *handles]).stdout or "[]")) if handles else []


def _labels(facts: dict[str, Any]) -> Labels:
    return dict((facts.get("Config") or facts).get("Labels") or {})


def _remove_thing(command: Sequence[str], thing: Thing) -> list[str]:
    done = _run([*command, *REMOVALS[thing.kind], thing.handle])
    if done.returncode and "No such" in done.stderr:
        return []
    if done.returncode and thing.kind == "image" and "conflict" in done.stderr:
        print(f"kept     image {thing.name}: {done.stderr.strip()}")
        return []
    if done.returncode:
        return [f"{thing.kind} {thing.name}: {done.stderr.strip()}"]
    print(f"removed  {thing.kind} {thing.name}")
    return []


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _fleet_paths(owner: Owner) -> list[Path]:
    return [
        place for form in HOST_PLACES for place in Path("/").glob(form.format("*").lstrip("/"))
        if owner.has_place(place)]


def _trusted(owner: Owner) -> list[Path]:
    """What labs told this machine's engine to trust; nobody else's."""
    return [] if owner.only else [mark.parent for mark in Path("/").glob(LAB_MARKS.lstrip("/"))]


def _checkout_paths() -> list[Path]:
    community = COLLECTIONS / "community"
    cached = [path for path in ROOT.rglob("__pycache__") if ".venv" not in path.parts]
    return [community, *cached, *(ROOT / name for name in CHECKOUT)]


def _remove_paths(paths: Iterable[Path]) -> list[str]:
    left = []
    for path in (path for path in paths if path.exists()):
        command = ["rm", "-rf", "--", str(path)]
        if os.geteuid() != 0 and not _is_mine(path):
            command = as_root(command)
        done = _run(command)
        if done.returncode:
            left.append(f"{path}: {done.stderr.strip()}")
        else:
            print(f"removed  {path}")
    return left


def _is_mine(path: Path) -> bool:
    """Whether this user owns a path and all below it (a test that ran as root may have written there)."""
    return all(found.lstat().st_uid == os.geteuid() for found in (path, *path.rglob("*")))


if __name__ == "__main__":
    sys.exit(main())
