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


def own_code(text: str, working_dir: str = "", environment: dict[str, str] | None = None) -> set[str]:
    """What a shell's text makes code, beside the system's."""
    return set(code_paths(working_dir, ["/bin/sh", "-c", text], environment)) - set(SYSTEM_CODE)


@pytest.mark.parametrize(("text", "own"), [
    ("exec python /srv/app/worker.py", {"/srv/app", "/srv/app/worker.py"}),
    ("cd /home/app && exec node index.js", {"/home/app"}), ("cd '/home/app';exec node index.js", {"/home/app"}),
    ("cd /home/app/; exec node dist/x.js", {"/home/app", "/home/app/dist", "/home/app/dist/x.js"}),
    ("if cd /a/b; then cd ../c; exec ./run; fi", {"/a/b", "/a/c", "/a/c/run"}),
    ("exec node home/x/y", {"/home/x", "/home/x/y"}),
    ("(exec </srv/in/x python3 - )", {"/srv/in", "/srv/in/x"}),
    ("(/srv/a/b|/srv/c/d)", {"/srv/a", "/srv/a/b", "/srv/c", "/srv/c/d"}),
    ("exec java -cp /a/x:/b/y.jar M", {"/a", "/a/x", "/b", "/b/y.jar"}),
    ("exec java -javaagent:/x/a.jar=p=/y M", {"/x", "/x/a.jar"}),
    ("exec node file:///srv/x/y.js", {"/srv/x", "/srv/x/y.js"}),
    ("PYTHONPATH=/data/lib exec python -m w", {"/data/lib"}),
    ('export PYTHONPATH="/data/lib:/d"; w', {"/data/lib", "/d"}),
    ("APP=/srv/a; cd $APP && exec w", {"/srv/a"}), ("cd ${APP:-/srv/b} && exec w", {"/srv/b"}),
    ("sh -c \"cd '/srv/a' && w\"", {"/srv", "/srv/a"}), ("cd \\\n /srv/a && w", {"/srv/a"}),
])
def test_what_a_shells_text_names_is_code(text: str, own: set[str]) -> None:
    assert own_code(text) == own


@pytest.mark.parametrize("text", [
    "exec worker --data=/data/x", 'exec worker --data="/data/x" -o=/y',
    "exec worker --pidfile /tmp/w.pid >/data/log 2>&1",
    "exec worker /run/w/s.sock </dev/null >> /var/lib/w/log", "cd /tmp && exec worker", "cd /tmp/x && exec ./worker",
    "mkdir -p /data/in && chown x /data/in && exec worker", "DATA=/data/in exec worker", "exec worker redis://r:1/0 a",
    "cd / && exec worker", "exec worker /data /home /var /etc /", "exec python -m worker -v", "echo $((1 / 2))",
    "--title=see /srv/x for more",
])
def test_data_in_a_shells_text_is_none(text: str) -> None:
    assert own_code(text) == set()


@pytest.mark.parametrize(("text", "own"), [
    ("exec worker /home/app", {"/home/app"}), ("exec worker /data/in", {"/data/in"}), ("exec w /etc/w", {"/etc/w"}),
    ("exec python /data/w.py", {"/data", "/data/w.py"}), ("cd /data && exec python -m worker", {"/data"}),
])
def test_a_directory_of_data_is_code_only_when_code_lies_right_in_it(text: str, own: set[str]) -> None:
    assert own_code(text) == own


@pytest.mark.parametrize(("command", "own"), [
    (["node", "home/app/index.js"], {"/home/app"}), (["./bin/run"], set()), (["srv/bin/run"], {"/srv/bin"}),
    (["worker", "queue", "-v", "--in=a/b", "redis://r/0"], set()),
    (["env", "PYTHONPATH=/data/lib", "w"], {"/data/lib"}),
    (["java", "-cp", "/a/x.jar:/b/y.jar", "M"], {"/a", "/b"}), (["java", "-javaagent:/x/a.jar", "M"], {"/x"}),
    (["worker", "tmp/x"], set()), (["tmp/worker"], {"/tmp"}),
    (["python", "-c", "run('/srv/a/x.py')"], {"/srv/a", "/srv/a/x.py"}),
])
@pytest.mark.parametrize("working_dir", ["", "/"])
def test_relative_words_begin_in_the_working_directory(working_dir: str, command: list[str], own: set[str]) -> None:
    assert set(code_paths(working_dir, command)) - set(SYSTEM_CODE) == own


def test_relative_words_may_leave_the_working_directory() -> None:
    assert set(code_paths("/work", ["node", "../srv/x.js"])) - set(SYSTEM_CODE) == {"/work", "/srv"}


@pytest.mark.parametrize(("environment", "own"), [
    ({"NODE_OPTIONS": "--require /data/hook.js"}, {"/data/hook.js"}),
    ({"NODE_OPTIONS": "-r ./x/hook --import=file:///a/b/c.mjs"}, {"/x", "/x/hook", "/a/b", "/a/b/c.mjs"}),
    ({"NODE_OPTIONS": '--require "/tmp/hook.js" --diagnostic-dir=/data'}, {"/tmp/hook.js"}),
    ({"NODE_OPTIONS": "--max-old-space-size=100"}, set()), ({"PYTHONUSERBASE": "/data/user"}, {"/data/user"}),
    ({"JAVA_TOOL_OPTIONS": "-javaagent:/x/a.jar=/y -XX:HeapDumpPath=/data"}, {"/x", "/x/a.jar"}),
    ({"JAVA_TOOL_OPTIONS": "-Djava.class.path=/a/b:/c/d -Djava.io.tmpdir=/data"}, {"/a", "/a/b", "/c", "/c/d"}),
    ({"BASH_ENV": "/data/env", "ENV": "production"}, {"/data/env"}), ({"ENV": "/x/env"}, {"/x/env"}),
    ({"HOME": "/home/app"}, {"/home/app/.local"}), ({"HOME": "/root"}, set()), ({"HOME": "/tmp"}, set()),
    ({"HOME": "/var/tmp/w"}, set()), ({"HOME": "/"}, set()), ({"HOME": ""}, set()), ({"HOME": "/srv"}, {"/srv/.local"}),
])
def test_what_variables_load_is_code(environment: dict[str, str], own: set[str]) -> None:
    assert set(code_paths("", [], environment)) - set(SYSTEM_CODE) == own


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


@pytest.mark.parametrize(("target", "path"), [
    ("/data/lib/python3.11/site-packages", "/data/lib/python3.11/site-packages"),
    ("/x/node_modules/a", "/x/node_modules"),
    ("/home/worker/.local", "/home/worker/.local"), ("/home/worker/.local/lib", "/home/worker/.local"),
    ("/data/.venv/", "/data/.venv"), ("/data/dist-packages/../dist-packages", "/data/dist-packages"),
])
def test_a_mount_in_a_directory_of_libraries_covers_code(target: str, path: str) -> None:
    assert covered_code(target, PATHS) == path


@pytest.mark.parametrize("target", ["/data/site-packages2", "/data/my.venv", "/home/worker/.localx", "/data/modules"])
def test_a_directory_of_another_name_is_data(target: str) -> None:
    assert covered_code(target, PATHS) is None


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
    "/etc/hosts.allow", "/home/worker/node_modules/x.js", "/root/.local/lib/python3.11/site-packages/x.pth",
])
def test_a_change_outside_data_is_a_change_of_code(path: str) -> None:
    assert changed_code([path], PATHS, []) == [path]


@pytest.mark.parametrize("path", [
    *DATA, *ENGINE_FILES, "/tmp/x", "/var", "/var/log/x", "/home/worker/.cache", "/root/.python_history", "/run/x.pid",
    "/home/worker/.local/share/x", "/tmp/x/node_modules/y", "/usr/sbin", "/sbin", "/etc", "/mnt/x", "/tmp/../tmp/y",
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
