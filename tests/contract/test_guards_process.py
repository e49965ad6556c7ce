# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard that passes leaves no trace: the worker gets arguments, environment, process id and signals as they were."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from contract.guard_cases import GUARD, write_files
from contract.guard_programs import Guard, Workshop, all_guards, guard_command, open_workshop

SHA = "0123456789abcdef0123456789abcdef01234567"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATUS = GUARD["exitStatus"]
SHELLS_OWN = {b"PWD", b"OLDPWD", b"SHLVL", b"_"}
GUARDED = all_guards()
# What a worker sees of itself: process id, open files, arguments, environment.
WITNESS = """
import os, sys
files = ",".join(sorted(os.listdir("/proc/self/fd")))
parts = [str(os.getpid()), files]
parts += [open("/proc/self/" + name, "rb").read().hex() for name in ("cmdline", "environ")]
sys.stdout.write("WITNESS " + "|".join(part.strip() for part in parts))
"""
ODD_ARGUMENTS = [
    b"", b" ", b"two words", b"*", b"?", b"[a-z]", b"~", b"$HOME", b"`id`", b"\\", b"\\n", b"a\nb\n", b"\t", b"-n",
    b"--", b"--check", b"'", b'"', b"%s%n", b"=", b"\xff\xfe", "žluťoučký 😀".encode(), b"\x01\x7f\x81\x82\x88",
    b"x" * 100_000,
]
ODD_ENVIRONMENT = {
    b"EMPTY": b"", b"LINES": b"a\nb\n", b"BYTES": b"\xff\xfe\x81\x82", b"SYNTAX": b"$(id) `id` ; * \\ '\"",
    b"IFS": b" \t\n", b"PYTHONPATH": b"/x", b"LONG": b"v" * 100_000, b"key": b"1", b"value": b"2", b"line": b"3",
}


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.fixture(params=GUARDED, ids=[guard.name for guard in GUARDED])
def guard(request: pytest.FixtureRequest) -> Guard:
    chosen: Guard = request.param
    return chosen


@pytest.fixture
def guarded(guard: Guard, shop: Workshop) -> list[str]:
    """A guard that will pass, up to and including the --."""
    return guard_command(guard, shop.guards, write_files({"record": "settled on new"}, shop.place()))


def environment(**more: str) -> dict[str, str]:
    return {"PATH": PATH, "NODE_ENV": "production", "GIT_SHA": SHA, **more}


def start(command: list[Any], variables: Any, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err.decode("utf-8", "replace")


def witness(command: list[Any], variables: dict[bytes, bytes], **options: Any) -> tuple[int, list[bytes]]:
    """The pid that was started, and what the witness at the command's end reports."""
    process = start(command, variables, **options)
    status, out, err = finish(process)
    assert status == 0, err
    return process.pid, out.partition(b"WITNESS ")[2].split(b"|")


def entries(report: list[bytes]) -> list[bytes]:
    return bytes.fromhex(report[3].decode()).split(b"\0")[:-1]


@pytest.mark.parametrize("locale", [None, b"C", b"C.UTF-8"])
def test_worker_gets_everything_as_it_was(guard: Guard, guarded: list[str], locale: Optional[bytes]) -> None:
    variables = {**{os.fsencode(k): os.fsencode(v) for k, v in environment().items()}, **ODD_ENVIRONMENT}
    if locale is not None:
        variables[b"LC_ALL"] = locale
    worker = [sys.executable, "-IS", "-c", WITNESS, *ODD_ARGUMENTS]
    _pid, bare = witness(worker, variables)
    pid, report = witness([*guarded, *worker], variables)
    assert report[0] == str(pid).encode(), "another process than the one that was started"
    assert report[1:3] == bare[1:3], "open files or arguments differ"
    expected, found = entries(bare), entries(report)
    if not guard.is_python:
        expected, found = [[e for e in side if e.partition(b"=")[0] not in SHELLS_OWN] for side in (expected, found)]
    assert sorted(found) == sorted(expected)


def test_signals_are_ignored_and_blocked_as_before(guarded: list[str]) -> None:
    """Python ignores SIGPIPE from its start on, and what is ignored stays so in the program that follows."""
    worker = ["grep", "^Sig[BI]", "/proc/self/status"]
    bare = finish(start(worker, environment()))[1]
    assert b"SigIgn" in bare
    assert finish(start([*guarded, *worker], environment()))[1].endswith(b"\n" + bare)


def test_inherited_files_stay_open(guarded: list[str]) -> None:
    reading, writing = os.pipe()
    worker = [sys.executable, "-c", f"import os; os.write({writing}, b'through')"]
    status, _out, err = finish(start([*guarded, *worker], environment(), pass_fds=[writing]))
    os.close(writing)
    assert (status, os.read(reading, 100)) == (0, b"through"), err
    os.close(reading)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_worker(guarded: list[str], name: signal.Signals) -> None:
    worker = "import signal, sys; signal.signal(%d, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
    process = start([*guarded, sys.executable, "-c", worker % name], environment())
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"ready\n":
            break
    process.send_signal(name)
    assert finish(process)[0] == 7


@pytest.mark.parametrize("exit_status", [0, 1, 3, 255])
def test_exit_status_is_the_workers(guarded: list[str], exit_status: int) -> None:
    assert finish(start([*guarded, "sh", "-c", f"exit {exit_status}"], environment()))[0] == exit_status


def test_a_closed_log_changes_nothing(guarded: list[str], shop: Workshop) -> None:
    marker = shop.place() / "marker"
    script = f'exec "$@" /bin/sh -c "echo started >{marker}" >&- 2>&-'
    assert finish(start(["sh", "-c", script, "sh", *guarded], environment()))[0] == 0
    assert marker.exists()
    refused = ["sh", "-c", f'exec "$@" /bin/sh -c "echo started >{marker}.2" tsx >&- 2>&-', "sh", *guarded]
    assert finish(start(refused, environment()))[0] == STATUS["refused"]
    assert not marker.with_name("marker.2").exists()


def _commands(place: Path) -> dict[str, tuple[int, str]]:
    (place / "plain").write_text("no program\n", encoding="utf-8")
    (place / "lost").write_text("#!/no/such/interpreter\n", encoding="utf-8")
    (place / "lost").chmod(0o755)
    return {
        "no-such-program": (127, "no-such-program"), "/no/such/program": (127, "/no/such/program"),
        "": (127, "not found"), "-c": (127, "-c"), str(place / "lost"): (127, "lost"),
        str(place / "plain"): (126, "plain"), str(place): (126, ""),
    }


def test_commands_that_cannot_be_started(guard: Guard, guarded: list[str], shop: Workshop) -> None:
    for command, (expected, named) in _commands(shop.place()).items():
        status, _out, err = finish(start([*guarded, command, "argument"], environment()))
        assert status == expected, (command, err)
        assert named in err
        assert "FATAL" not in err
        assert "Traceback" not in err


def test_a_program_is_found_in_path_as_a_shell_finds_it(guarded: list[str], shop: Workshop) -> None:
    first, second = shop.place(), shop.place()
    (first / "worker").write_text("not executable", encoding="utf-8")
    (second / "worker").write_text("#!/bin/sh\necho second\n", encoding="utf-8")
    (second / "worker").chmod(0o755)
    path = f"/no/such/directory:{first}:{second}:{PATH}"
    assert finish(start([*guarded, "worker"], environment(PATH=path)))[1].endswith(b"second\n")
    without = {name: value for name, value in environment().items() if name != "PATH"}
    assert finish(start([*guarded, "true"], without))[0] == 0


@pytest.mark.parametrize(("options", "named"), [
    ([], "no command after --"), (["--"], "no command after --"), (["node"], "unknown option"),
    (["-x", "--", "node"], "-x"), (["--record"], "--record"), (["--image-file"], "--image-file"),
    (["--check=1"], "--check=1"), (["x,--check"], "x,--check"), (["--image-file", "/x", "--"], "no command"),
    (["\n\x1b"], ": ?"), ([""], "unknown option"),
])
def test_wrong_usage(guard: Guard, shop: Workshop, options: list[str], named: str) -> None:
    status, out, err = finish(start([*guard.interpreter, str(shop.guards / guard.file), *options], environment()))
    assert (status, out) == (STATUS["usage"], b"")
    assert err.startswith("version_guard: ")
    assert named in err.splitlines()[0]
    assert "usage: version_guard [--check" in err


def test_help(guard: Guard, shop: Workshop) -> None:
    status, out, err = finish(start([*guard.interpreter, str(shop.guards / guard.file), "--help"], {}))
    assert (status, err) == (0, "")
    for text in ("--check", "--record DIR", "--image-file FILE", *(str(number) for number in STATUS.values())):
        assert text in out.decode()


def test_check_decides_and_starts_nothing(guarded: list[str]) -> None:
    check = [*guarded[:-1], "--check"]
    assert finish(start(check, environment()))[0] == 0
    assert finish(start(check, environment(GIT_SHA="unknown")))[0] == STATUS["refused"]
    status, out, _err = finish(start([*check, "--", "sh", "-c", "echo started"], environment()))
    assert (status, b"started" in out) == (0, False)
    assert finish(start([*check, "--", "tsx"], environment()))[0] == STATUS["refused"]


def test_environment_cannot_replace_what_the_guard_uses(guarded: list[str], shop: Workshop) -> None:
    """Functions, options and startup files that some shells take from the environment."""
    hook = shop.place() / "hook"
    hook.write_text("exit 0\n", encoding="utf-8")
    hostile = {f"BASH_FUNC_{name}%%": "() { return 0; }" for name in ("read", "printf", "test", "[", "__dg_refuse")}
    hooks = dict.fromkeys(("ENV", "BASH_ENV", "PYTHONSTARTUP"), str(hook))
    variables = environment(GIT_SHA="unknown", PYTHONPATH=str(hook.parent), **hooks, **hostile)
    status, out, err = finish(start([*guarded, "sh", "-c", "echo started"], variables))
    assert (status, b"started" in out) == (STATUS["refused"], False), err
    assert "GIT_SHA is 'unknown'" in err


# bash asks the name service cache who it is, before it reads a line of the guard.
WITHOUT_BASH = [guard for guard in GUARDED if guard.name != "bash"]


@pytest.mark.parametrize("guard", WITHOUT_BASH, ids=[guard.name for guard in WITHOUT_BASH], indirect=True)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_socket_and_no_other_program_before_the_worker(guarded: list[str], shop: Workshop) -> None:
    """Traced up to the worker, which opens a socket to show that one would have been seen."""
    trace = shop.place() / "trace"
    worker = [sys.executable, "-c", "import socket; socket.socket().close(); print('connected')"]
    tracer = ["strace", "-f", "-qq", "-e", "trace=network,process", "-o", str(trace)]
    status, out, err = finish(start([*tracer, *guarded, *worker], environment()))
    assert (status, out.endswith(b"connected\n")) == (0, True), err
    calls = re.findall(r"^\d+ +(\w+)\(.*", trace.read_text(encoding="utf-8"), re.MULTILINE)
    programs = [index for index, call in enumerate(calls) if call == "execve"]
    before, after = calls[:programs[1]], calls[programs[1]:]
    assert set(before) <= {"execve", "arch_prctl"}, "the guard did more than judge"
    assert "socket" in after


@pytest.mark.parametrize("guard", WITHOUT_BASH, ids=[guard.name for guard in WITHOUT_BASH], indirect=True)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_refusal_opens_no_socket_either(guarded: list[str], shop: Workshop) -> None:
    trace = shop.place() / "trace"
    tracer = ["strace", "-f", "-qq", "-e", "trace=network,execve", "-o", str(trace)]
    assert finish(start([*tracer, *guarded, "true"], environment(EXPECTED_GIT_SHA="x")))[0] == STATUS["refused"]
    calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(encoding="utf-8"), re.MULTILINE)
    assert calls == ["execve"]
