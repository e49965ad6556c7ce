# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every road to a stale worker that the engine can see has its verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import verdicts
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import ImageFacts
from ansible_collections.driftguard.workers.plugins.module_utils.verdicts import container_problem
from support.containers import IMAGE_ID, RELEASE_ID, SHA, container, wanted

GUARD = "/opt/driftguard/guard"
OTHER_SHA = "f" * 40
OLD_IMAGE = "sha256:" + "b" * 64
FACTS = ImageFacts(IMAGE_ID, SHA, RELEASE_ID, SHA, "/work", ("python", "-m", "worker"))

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "restarting": ({"status": "restarting", "exit_code": 3}, verdicts.CRASHING, "exit status 3"),
    "out of memory": ({"status": "restarting", "oom_killed": True}, verdicts.CRASHING, "out of memory"),
    "exited": ({"status": "exited"}, verdicts.STOPPED, "exited (restart policy always): it may revive"),
    "only created": ({"status": "created", "restart_policy": "no"}, verdicts.STOPPED, "created (restart policy no)"),
    "paused": ({"status": "paused"}, verdicts.STOPPED, "paused"),
    "dead": ({"status": "dead"}, verdicts.STOPPED, "dead"),
    "nobody knows": ({"status": "unknown"}, verdicts.STOPPED, "unknown"),
    "half made": ({"name": "0123456789ab_demo-workers-extractor-1"}, verdicts.STOPPED, "half made"),
    "old image": ({"image_id": OLD_IMAGE}, verdicts.STALE, "runs image bbbbbbbbbbbb (0123456), not aaaaaaaaaaaa"),
    "unstamped image": ({"image_id": OLD_IMAGE, "image": replace(FACTS, sha="")}, verdicts.STALE, "an unstamped image"),
    "image is gone": ({"image_id": OLD_IMAGE, "image": None}, verdicts.STALE, "an unstamped image"),
    "right id, no facts": ({"image": None}, verdicts.STALE, "stamped unknown"),
    "other stamp": ({"image": replace(FACTS, sha=OTHER_SHA)}, verdicts.STALE, "stamped fffffff"),
    "other release": (
        {"image": replace(FACTS, release_id="0123456789ab.000000000000")}, verdicts.STALE, "stamped 0123456"),
    "image's environment lies": ({"image": replace(FACTS, environment_sha=OTHER_SHA)}, verdicts.STALE, "stamped"),
    "overridden": ({"environment": {"GIT_SHA": OTHER_SHA}}, verdicts.OVERRIDDEN, "GIT_SHA was set"),
    "emptied": ({"environment": {"GIT_SHA": ""}}, verdicts.OVERRIDDEN, "GIT_SHA was set"),
    "taken away": ({"environment": {}}, verdicts.OVERRIDDEN, "GIT_SHA was set"),
    "no guard": ({"entrypoint": ()}, verdicts.UNGUARDED, "without the guard"),
    "other guard": (
        {"entrypoint": ("/usr/bin/python3", "/tmp/version_guard.py")}, verdicts.UNGUARDED, "without the guard"),
    "guard that only checks": (
        {"entrypoint": ("/usr/bin/python3", "-IS", f"{GUARD}/version_guard.py", "--check", "--")}, verdicts.UNGUARDED,
        "without the guard"),
    "guard with a record of its own": (
        {"entrypoint": ("/usr/bin/python3", "-IS", f"{GUARD}/version_guard.py", "--record", "/tmp", "--")},
        verdicts.UNGUARDED, "without the guard"),
    "guard as an argument of something else": (
        {"entrypoint": ("/bin/sh", "-c", "exec \"$@\"", f"{GUARD}/version_guard.py", "--")}, verdicts.UNGUARDED,
        "without the guard"),
    "guard in the other mode": (
        {"entrypoint": ("/usr/bin/python3", "-IS", f"{GUARD}/version_guard.py", "--supervise", "--")},
        verdicts.UNGUARDED, "otherwise than as /usr/bin/python3 -IS"),
    "guard not mounted": ({"mounts": ("/tmp",)}, verdicts.UNGUARDED, "without the guard"),
    "guard of another directory": ({"guard": "/tmp/guard"}, verdicts.UNGUARDED, "its guard is /tmp/guard, not /"),
    "guard that the worker may write": ({"guard": ""}, verdicts.UNGUARDED, "a directory that it may write, not /"),
    "volume over the code": (
        {"mounts": (GUARD, "/work/src")}, verdicts.MOUNTED, "/work/src lies over the code in /work"),
    "volume above the code": ({"mounts": (GUARD, "/etc")}, verdicts.MOUNTED, "/etc/driftguard"),
    "image.json replaced": ({"mounts": (GUARD, "/etc/driftguard/image.json")}, verdicts.MOUNTED, "/etc/driftguard"),
    "volume where the command points": (
        {"mounts": (GUARD, "/srv/x"), "command": ("node", "/srv/x/main.js")}, verdicts.MOUNTED, "/srv/x"),
    "volume on the search path": (
        {"mounts": (GUARD, "/venv"), "environment": {"GIT_SHA": SHA, "PATH": "/venv/bin:/bin"}}, verdicts.MOUNTED,
        "/venv"),
    "volume where a shell's text goes": (
        {"mounts": (GUARD, "/home/app"), "command": ("/bin/sh", "-c", "cd /home/app && exec node index.js")},
        verdicts.MOUNTED, "/home/app"),
    "volume where a variable loads from": (
        {"mounts": (GUARD, "/data"), "environment": {"GIT_SHA": SHA, "JAVA_TOOL_OPTIONS": "-javaagent:/data/a.jar"}},
        verdicts.MOUNTED, "/data/a.jar"),
    "volume for libraries": ({"mounts": (GUARD, "/home/w/.local/lib")}, verdicts.MOUNTED, "/home/w/.local"),
    "changed file where a shell's text goes": (
        {"changes": ("/home", "/home/app", "/home/app/x.js"), "command": ("sh", "-c", "cd /home/app; exec node x.js")},
        verdicts.MODIFIED, "/home/app, /home/app/x.js"),
    "changed file": ({"changes": ("/work", "/work/main.py")}, verdicts.MODIFIED, "/work, /work/main.py"),
    "many changed files": ({"changes": tuple(f"/app/{name}" for name in "abcde")}, verdicts.MODIFIED, "and 2 more"),
    "unhealthy": ({"health": "unhealthy"}, verdicts.UNHEALTHY, "health check fails"),
}


def test_a_right_container_has_no_problem() -> None:
    assert container_problem(container(), wanted()) is None


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_has_a_verdict_and_a_remedy(name: str) -> None:
    changes, verdict, found = WRONG[name]
    problem = container_problem(container(**changes), wanted())
    assert problem is not None
    assert problem.verdict == verdict
    assert found in problem.found
    assert problem.remedy


@pytest.mark.parametrize("changes", [
    {"health": "starting"}, {"health": "none"}, {"changes": ("/tmp/x", "/var/log/x", "/sbin/docker-init")},
    {"mounts": (GUARD, "/data", "/run/secrets/redis_password", "/tmp")}, {"restart_count": 7},
])
def test_what_is_no_problem(changes: dict[str, Any]) -> None:
    assert container_problem(container(**changes), wanted()) is None


NODE_GUARD = ("--require", f"{GUARD}/version-guard.cjs")


@pytest.mark.parametrize(("command", "right"), [
    (("node", *NODE_GUARD, "dist/worker.js"), True),
    (("/usr/bin/tini", "--", "node", *NODE_GUARD, "dist/worker.js"), True),
    (("node", "dist/worker.js"), False),
    (("node", "dist/worker.js", *NODE_GUARD), False),
    (("node", "--require", "/tmp/version-guard.cjs", "dist/worker.js"), False),
    (("sh", "-c", "node", *NODE_GUARD), False),
])
def test_the_node_guard_is_where_it_was_rendered(command: tuple[str, ...], right: bool) -> None:
    problem = container_problem(container(command=command), wanted(node=True))
    assert (problem is None) == right
    assert right or (problem is not None and problem.verdict == verdicts.UNGUARDED)


@pytest.mark.parametrize("entrypoint", [
    ("/bin/sh", f"{GUARD}/version_guard.sh", "--"),
    ("/usr/bin/python3", "-IS", f"{GUARD}/version_guard.py", "--"),
    ("/usr/bin/python3", "-IS", f"{GUARD}/version_guard.py", "--supervise", "--"),
])
def test_every_rendered_guard_passes_where_the_image_isnt_known(entrypoint: tuple[str, ...]) -> None:
    assert container_problem(container(entrypoint=entrypoint), wanted(entrypoint=())) is None


def test_the_graver_problem_is_named() -> None:
    both = container(status="exited", image_id=OLD_IMAGE, environment={}, entrypoint=(), health="unhealthy")
    assert (container_problem(both, wanted()) or pytest.fail("none")).verdict == verdicts.STOPPED
    running = replace(both, status="running")
    assert (container_problem(running, wanted()) or pytest.fail("none")).verdict == verdicts.STALE


def test_a_moved_tag_is_a_problem_of_right_containers() -> None:
    problem = container_problem(container(), wanted(retagged="tag demo-worker:x was moved"))
    assert problem is not None
    assert (problem.verdict, problem.found) == (verdicts.RETAGGED, "tag demo-worker:x was moved")


@pytest.mark.parametrize(("facts", "sha", "verdict"), [
    (FACTS, OTHER_SHA, verdicts.STALE), (None, SHA, verdicts.STALE), (replace(FACTS, sha=""), SHA, verdicts.STALE),
    (FACTS, SHA, verdicts.UNKNOWN), (replace(FACTS, sha=""), "", verdicts.UNKNOWN), (FACTS, "", verdicts.STALE),
])
def test_without_the_releases_image_nothing_is_ever_right(facts: Any, sha: str, verdict: str) -> None:
    problem = container_problem(container(image=facts), wanted(image_id=None, sha=sha))
    assert problem is not None
    assert problem.verdict == verdict


def test_only_what_can_pass_is_waited_for() -> None:
    assert verdicts.PASSING.isdisjoint(verdict for _changes, verdict, _found in WRONG.values())
