# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as code in a container: nothing may lie over it, nothing in it may have changed."""

from __future__ import annotations

from posixpath import normpath

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.code_paths import (
    DATA,
    ENGINE_FILES,
    SYSTEM_CODE,
    changed_code,
    code_paths,
    covered_code,
)
from hypothesis import given
from hypothesis import strategies as st

PATHS = code_paths("/work", ["/srv/bin/run", "--config", "/etc/worker.conf"])
PATH = st.lists(
    st.sampled_from(["app", "..", ".", "", "data", "tmp", "usr", "opt", "work", "secrets", "run", "x"]), max_size=6
).map(
    lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(("working_dir", "command", "own"), [
    ("", [], set()), ("/", ["python", "-m", "worker"], set()), ("/work", [], {"/work"}), ("/work/", [], {"/work"}),
    ("//srv/./a/../app", [], {"/srv/app"}), ("/..", [], set()), ("", ["/srv/run"], {"/srv"}), ("", ["/run.sh"], set()),
    ("", ["node", "/code/dist/worker.js"], {"/code/dist"}), ("", ["/bin/sh", "-c", "/srv/x"], {"/srv"}),
    ("", ["worker", "--data=/data/x"], set()), ("", ["worker", "--pidfile", "/tmp/worker.pid"], set()),
    ("", ["worker", "/run/secrets/token", "/dev/stdout", "/var/log/x"], set()), ("", ["/tmp/worker"], {"/tmp"}),
])
def test_the_directories_of_what_runs(working_dir: str, command: list[str], own: set[str]) -> None:
    assert set(code_paths(working_dir, command)) == set(SYSTEM_CODE) | own


@pytest.mark.parametrize(("environment", "own"), [
    ({}, set()), ({"PATH": ""}, set()), ({"PATH": "bin:./x::"}, set()), ({"HOME": "/data"}, set()),
    ({"PATH": "/venv/bin:/usr/bin:/bin"}, {"/venv/bin", "/venv", "/usr/bin"}),
    ({"PATH": "/root/.local/bin"}, {"/root/.local/bin", "/root/.local"}), ({"PATH": "/tmp/bin"}, {"/tmp/bin"}),
    ({"PYTHONPATH": "/data/lib:/data/more/"}, {"/data/lib", "/data/more"}),
    ({"LD_PRELOAD": "/a/x.so /b/y.so:/c/z.so"}, {"/a/x.so", "/b/y.so", "/c/z.so"}),
])
def test_search_paths_are_code(environment: dict[str, str], own: set[str]) -> None:
    assert set(code_paths("", [], environment)) - set(SYSTEM_CODE) == own


@pytest.mark.parametrize(("target", "path"), [
    ("/work", "/work"), ("/work/src", "/work"), ("/work/../work/x", "/work"), ("//work", "/work"), ("/", "/app"),
    ("/srv", "/srv/bin"), ("/etc", "/etc"), ("/etc/driftguard/image.json", "/etc"), ("/usr/local/lib/python3", "/usr"),
    ("/opt", "/opt"), ("/opt/driftguard", "/opt"), ("/app/data", "/app"), ("/lib64/x", "/lib64"),
    ("/data/../app", "/app"),
])
def test_a_mount_below_at_or_above_code_covers_it(target: str, path: str) -> None:
    assert covered_code(target, PATHS) == path


@pytest.mark.parametrize("target", [
    "/data", "/tmp", "/workspace", "/application", "/srv2", "/usrx", "/run", "/run/secrets", "/run/secrets/x",
    "/optical",
    "/opt/driftguard/guard", "/opt/driftguard/guard/", "/opt/driftguard/./guard", "/home/worker", "/srv/binx",
])
def test_a_mount_elsewhere_does_not(target: str) -> None:
    assert covered_code(target, PATHS) is None


@pytest.mark.parametrize("path", [
    "/work", "/work/main.py", "/work/data/x", "/app/x", "/usr/lib/python3/x.py", "/opt/driftguard/guard/x",
    "/etc/passwd",
    "/etc/driftguard", "/etc/driftguard/image.json", "/srv/x", "/bin/sh", "/sbin/x", "/boot", "/data/x", "/lib/x",
    "/run.sh",
    "/etc/hosts.allow",
])
def test_a_change_outside_data_is_a_change_of_code(path: str) -> None:
    assert changed_code([path], PATHS, []) == [path]


@pytest.mark.parametrize("path", [
    *DATA, *ENGINE_FILES, "/tmp/x", "/var", "/var/log/x", "/home/worker/.cache", "/root/.python_history", "/run/x.pid",
    "/usr/sbin", "/sbin", "/etc", "/mnt/x", "/tmp/../tmp/y",
])
def test_a_change_of_data_or_by_the_engine_is_none(path: str) -> None:
    assert changed_code([path], PATHS, []) == []


def test_code_in_a_data_directory_is_code() -> None:
    paths = code_paths("/home/worker/app", ["/var/lib/worker/run"])
    changes = [
        "/home/worker/app/x.py", "/home/worker/.cache/x", "/var/lib/worker/y", "/var/lib/other", "/home/worker/app"
    ]
    assert changed_code(changes, paths, []) == ["/home/worker/app/x.py", "/var/lib/worker/y", "/home/worker/app"]


def test_mount_points_and_what_leads_to_them_are_no_changes() -> None:
    changes = ["/data", "/data/in", "/data/in/x", "/data/other", "/datax", "/work/mnt", "/work/mnt/x", "/work"]
    assert changed_code(changes, PATHS, ["/data/in/", "//work/mnt"]) == ["/data/other", "/datax"]


@given(PATH, PATH)
def test_every_spelling_of_a_path_is_judged_alike(target: str, working_dir: str) -> None:
    paths = code_paths(working_dir, [])
    spelled = target.replace("/", "//") + "/./x/../"
    assert covered_code(spelled, paths) == covered_code(target, paths)
    assert bool(changed_code([spelled], paths, [])) == bool(changed_code([target], paths, []))


@given(PATH, PATH)
def test_what_a_mount_may_not_cover_may_not_change_either(path: str, working_dir: str) -> None:
    """Code is one notion: a changed file is reported wherever a mount would be, save for the engine's own places."""
    paths = code_paths(working_dir, [])
    plain = "/" + normpath(path).lstrip("/")
    is_code = any(plain == code or plain.startswith(code + "/") for code in paths)
    if is_code and not any(file == plain or file.startswith(plain + "/") for file in ENGINE_FILES):
        assert changed_code([path], paths, []) == [path]
