# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two services as Compose resolved them: a second opinion on a list of changes.

Shares no code with what makes that list.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Iterator, Sequence

__all__ = ["config", "differing"]

MOVED = {
    "mem_limit": "deploy.resources.limits.memory", "cpus": "deploy.resources.limits.cpus",
    "pids_limit": "deploy.resources.limits.pids", "mem_reservation": "deploy.resources.reservations.memory",
    "scale": "deploy.replicas"}


def config(files: Sequence[str], directory: Path, env_files: Sequence[str] = ()) -> dict[str, Any]:
    """``docker compose config`` of some files, in an environment without variables of its own."""
    values = [word for file in env_files or ["/dev/null"] for word in ("--env-file", file)]
    names = [word for file in files for word in ("--file", file)]
    done = subprocess.run(
        ["docker", "compose", "--project-directory", str(directory), "--profile", "*", *values, *names, "config",
         "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}, capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def differing(before: dict[str, Any], name: str, after: dict[str, Any], fleet_name: str) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values aren't the same, with both.

    :param before: a resolved document and the name of a service in it; likewise after.
    """
    was, is_now = _leaves_of(before, name), _leaves_of(after, fleet_name)
    return {
        key: (was.get(key), is_now.get(key)) for key in {**was, **is_now} if was.get(key) != is_now.get(key)}


def _leaves_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"deploy.replicas": "1"}
    for path, value in _leaves((), document["services"][name]):
        found.update(_said(document, path, value))
    for key, place in MOVED.items():
        if key in found:
            found[place] = found.pop(key)
    return {key: _number(value) if key.startswith("deploy.resources") else value for key, value in found.items()}


def _number(text: str) -> str:
    return str(float(text.strip('"')))


def _said(document: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head = path[0]
    if head == "networks":
        real = document["networks"][path[1]]["name"] if len(path) > 1 else ""
        return {".".join(("networks", real, *path[2:])): value if len(path) > 2 else "joined"}
    if head in ("volumes", "secrets", "configs", "tmpfs"):
        return {key: text for one in value for key, text in _of_list(document, head, one)}
    return {".".join(path): json.dumps(value, sort_keys=True)}


def _of_list(document: dict[str, Any], head: str, one: Any) -> Iterator[tuple[str, str]]:
    if head == "tmpfs":
        yield f"tmpfs.{one.split(':')[0]}", one.partition(":")[2]
    elif one.get("type") == "tmpfs":
        yield f"tmpfs.{one['target']}", ""
    elif head == "secrets":
        target = one.get("target", one["source"])
        yield f"secrets.{target if target[0] == '/' else '/run/secrets/' + target}", "there"
    else:
        for path, value in _leaves((), one):
            named = path == ("source",) and one.get("type") == "volume"
            if path != ("target",):
                text = str(document["volumes"][value]["name"] if named else value)
                yield ".".join((head, one["target"], *path)), text


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, content in value.items():
            yield from _leaves((*path, key), content)
    elif path[0] in ("networks", "environment") or value not in (None, "", [], {}):
        yield path, value
