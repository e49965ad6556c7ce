# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fuzzed fleet spec gets an error that helps, or a compose file that the real compose reads back to the byte.

Never another exception, never half a file on disk, not even when the disk is full at any point of the writing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.compose_host import write_compose
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import READERS, Service, read_services
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_values import duration
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Result
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.containers import FakeEngine
from support.release_data import release_data, release_of

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="secret files are given to the image's user, which takes root")

IMAGES = release_of().variants
SECRETS = {"token": "s3cret-token", "other.one-2": "an0ther-secret"}
LEAK = "read-from-the-deployers-shell"
HOSTILE = [
    "${X}", "$X", "$$X", "${X:-default}", "${X:?required}", "$(id)", "`id`", "$", "%", "12345e7", "0o7", "0x1F",
    "1_000", ".5",
    "1:20", "2001-1-1T1:1:1Z", "yes", "on", "n", "null", "~", "=", "<<", "", " lead", "trail ", "two\nlines\n",
    "a\r\nb", "\ttab",
    "a: b # c", "- x", "!!python/object:os.system", "&a", "*a", "---", "...", "{{ jinja }}", "'", '"', "\\n", "\x7f",
    "\x1b[0m",
    "\u0085", "\u2028", "\ufeff", "čćž", "😀", "\ud800", "a\0b", "x" * 140_000, "../../etc/passwd", "; rm -rf /",
]
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=20)
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=4)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    ["on", "Y", "PATH", "GIT_SHA", "REDIS_URL"])
PATHS = st.sampled_from(
    ["/data", "/srv/${X}/x", "/tmp/a b", "//data/./x", "/app", "/work/x", "/", "/proc", "/č$ć", "data", "x-v.1"])
DURATION = st.integers(0, 90).map(lambda seconds: f"{seconds}s") | st.integers(0, 9).map(
    lambda minutes: f"{minutes}m5s")
SIZE = st.integers(6, 4096).map(lambda size: f"{size}M") | st.integers(2**23, 2**32)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "variant": st.sampled_from(["base", "ocr"]), "command": st.lists(TEXT, min_size=1, max_size=4),
    "replicas": st.integers(1, 5), "concurrency": st.integers(1, 99),
    "environment": st.dictionaries(NAME, TEXT, max_size=5),
    "secrets": st.lists(st.sampled_from(list(SECRETS)), max_size=2), "memory": SIZE, "cpus": st.floats(0.01, 8),
    "pids": st.integers(1, 999),
    "reservations": st.fixed_dictionaries({}, optional={"memory": SIZE, "cpus": st.floats(0.01, 8)}),
    "healthcheck": st.just(False) | st.fixed_dictionaries({"test": st.lists(TEXT, min_size=1, max_size=3)}, optional={
        "interval": DURATION, "timeout": DURATION, "start_period": DURATION, "retries": st.integers(1, 9)}),
    "stop_grace_period": DURATION, "drain_time": DURATION,
    "volumes": st.lists(st.tuples(PATHS, PATHS, st.sampled_from(["", ":ro", ":rw"])).map(
        lambda parts: f"{parts[0]}:{parts[1]}{parts[2]}"), max_size=2),
    "tmpfs": st.lists(PATHS, max_size=2),
    "networks": st.lists(st.sampled_from(["n", "1e3", "a.b_c-1", "host", "x-n"]), max_size=2),
    "read_only": st.booleans(), "singleton": st.just(False), "guard": st.sampled_from(["exec", "supervise", "node"]),
    "order": st.sampled_from(["stop-first", "start-first"]),
}


def test_every_key_is_fuzzed() -> None:
    assert set(LIKELY) == set(READERS)


def likely_service() -> st.SearchStrategy[dict[str, Any]]:
    """A service whose values are of the right kind, most of them."""
    return st.fixed_dictionaries({}, optional=LIKELY)


def spoiled_service() -> st.SearchStrategy[dict[Any, Any]]:
    """The same with anything under known and unknown keys."""
    garbage = st.dictionaries(st.sampled_from([*READERS, "imaeg", "on", 5]), GARBAGE, max_size=2)
    return st.tuples(likely_service(), garbage).map(lambda parts: {**parts[0], **parts[1]})


def compose(root: Path, services: Any, version: str = "20.10.24", **options: Any) -> Result:
    engine: Any = FakeEngine(version=version)
    return write_compose({
        "fleet": "demo", "root": str(root), "services": services, "defaults": {"memory": "64M"}, "placement": None,
        "host": "host ${X}", "release": release_data(), "generation": 1, "run": "r", "lock_wait": 5.0,
        "redis_url": "redis://redis:6379/0", "redis_password": "redis-passw0rd", "networks": [], "production": True,
        "secrets": SECRETS, "redis_user_per_release": False, **options,
    }, False, lambda: engine)


def refusal(root: Path, services: Any, **options: Any) -> Optional[DriftguardError]:
    """The error, None when it was written."""
    try:
        compose(root, services, **options)
    except DriftguardError as error:
        return error
    return None


def helpful(error: DriftguardError) -> bool:
    """Whether an error says all it should, briefly, without drawing on the terminal or telling a secret."""
    said = (error.subject, error.expected, error.found, error.remedy)
    secret = any(content in str(error) for content in (*SECRETS.values(), "redis-passw0rd"))
    return all(said) and str(error).isprintable() and len(str(error)) < 20_000 and not secret


def accepted(root: Path, raw: Any) -> Optional[Service]:
    """The service when it is fit for a compose file; else the error must be of use, and nothing may be left."""
    error = refusal(root, {"svc": raw})
    if error is None:
        return read_services("demo", {"svc": raw}, {"memory": "64M"})["svc"]
    assert helpful(error), str(error)
    assert list(root.rglob("*")) == []
    return None


SLOW = settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))


@SLOW
@given(raws=st.lists(likely_service() | spoiled_service(), min_size=12, max_size=12), new_engine=st.booleans())
def test_a_spec_is_refused_helpfully_or_read_back_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, raws: list[Any], new_engine: bool,
) -> None:
    fit = {f"svc{number}": raw for number, raw in enumerate(raws) if accepted(tmp_path_factory.mktemp("alone"), raw)}
    if not fit:
        return
    root = tmp_path_factory.mktemp("together")
    version = "25.0.0" if new_engine else "20.10.24"
    first = compose(root, fit, version)
    read_back = config(Path(first.values["directory"]) / "compose.yml")
    assert LEAK not in json.dumps(read_back)
    services = read_services("demo", fit, {"memory": "64M"})
    assert set(read_back["services"]) == set(services)
    for name, service in services.items():
        check_service(read_back, read_back["services"][name], service)
    again = compose(root, dict(reversed(fit.items())), version)
    assert (again.changed, again.values["revision"]) == (False, first.values["revision"])


def config(file: Path) -> dict[str, Any]:
    """The file as compose understands it, in an environment full of variables that it could read."""
    done = subprocess.run(
        ["docker", "compose", "--project-directory", str(file.parent), "--env-file", "/dev/null", "--file", str(file),
         "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "X": LEAK, "HOME": "/nonexistent"}, capture_output=True, check=False,
        timeout=60)
    assert done.returncode == 0, (done.stderr.decode(), file.read_text())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_service(document: Mapping[str, Any], found: Mapping[str, Any], service: Service) -> None:
    """Compose's reading of one service against the spec's; compose writes each dollar sign twice."""
    image = IMAGES[service.variant]
    assert found["image"] == image.image
    assert found["command"] == doubled([*image.entrypoint, *(service.command or image.cmd)])
    assert {name: found["environment"][name] for name in service.environment} == doubled(dict(service.environment))
    assert found["environment"]["WORKER_HOST"] == "host $${X}"
    assert found.get("tmpfs", []) == doubled(list(service.tmpfs))
    mounts = [(one["type"], one["source"], one["target"], one.get("read_only", False)) for one in found["volumes"][1:]]
    assert mounts == [(one.kind, *doubled([one.source, one.target]), one.read_only) for one in service.volumes]
    limits = found["deploy"]["resources"]["limits"]
    assert (int(limits["memory"]), int(limits["pids"])) == (service.memory, service.pids)
    assert float(limits.get("cpus", 0)) == (service.cpus or 0)
    assert (found["read_only"] if service.read_only else found.get("read_only", False)) is service.read_only
    assert duration(found["stop_grace_period"]) == service.stop_grace_period
    assert sorted(found["networks"]) == sorted(service.networks or ["default"])
    assert sorted(one["target"] for one in found["secrets"]) == sorted({*service.secrets, "redis_password"})
    assert all(Path(document["secrets"][one["source"]]["file"]).is_file() for one in found["secrets"])
    if service.healthcheck and service.healthcheck.test:
        assert found["healthcheck"]["test"] == doubled(["CMD", *service.healthcheck.test])


def doubled(value: Any) -> Any:
    """A value with each dollar sign twice."""
    if isinstance(value, dict):
        return {key: doubled(content) for key, content in value.items()}
    return [doubled(element) for element in value] if isinstance(value, list) else value.replace("$", "$$")


@SLOW
@given(options=st.dictionaries(
    st.sampled_from(["fleet", "host", "redis_url"]), TEXT, max_size=3), structured=st.fixed_dictionaries({}, optional={
        "services": GARBAGE, "defaults": GARBAGE, "networks": GARBAGE, "placement": GARBAGE,
        "release": st.dictionaries(TEXT, GARBAGE)}))
def test_garbage_anywhere_is_refused_helpfully(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], structured: dict[str, Any],
) -> None:
    root = tmp_path_factory.mktemp("garbage")
    error = refusal(root, **{"services": {"svc": None}, **options, **structured})
    if error is not None:
        assert helpful(error), str(error)
        assert list(root.rglob("*")) == []


SPEC = {
    "extractor": {"secrets": ["token"], "environment": {"A": "x" * 5000}},
    "ocr": {"variant": "ocr", "secrets": ["other.one-2"]}
}


@contextmanager
def small_disk(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own."""
    place = directory / options.replace(",", "-")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def check_whole(root: Path) -> None:
    """Whatever is on disk is whole: revisions with both files, secrets with their content, no leftovers."""
    fleet = root / "demo"
    for number in Revisions(fleet).numbers():
        Revisions(fleet).load(number)
        assert (fleet / f"revisions/{number}/compose.yml").read_text().endswith("\n")
    contents = {**SECRETS, "redis_password": "redis-passw0rd"}
    for path in fleet.glob("secrets/[0-9]*/*"):
        assert path.read_text() == contents[path.stem]  # without the mark
        assert path.stat().st_mode & 0o777 == 0o400
    key = fleet / "secrets/.key"
    assert not key.exists() or len(key.read_text()) == 64
    kept = {".key", "compose.yml", "release.json", "fence", "lock", "lock.fence", *contents}
    # A secret's file without its mark.
    names = {
        path.stem if path.parent.parent.name == "secrets" else path.name
        for path in fleet.rglob("*") if path.is_file()}
    assert names <= kept
    assert not list(fleet.rglob(".new-*"))


@pytest.mark.parametrize(
    "options", [f"size={pages * 4}k" for pages in range(1, 21, 2)] + [f"size=1m,nr_inodes={n}" for n in range(2, 22)]
)
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, options: str) -> None:
    with small_disk(tmp_path, options) as root:
        error = refusal(root, SPEC)
        if error is not None:
            assert "No space left on device" in error.found
            assert helpful(error)
        check_whole(root)
        subprocess.run(["mount", "-o", "remount,size=4m,nr_inodes=200", str(root)], check=True)
        compose(root, SPEC)
        check_whole(root)
        assert not compose(root, SPEC).changed


def test_the_small_disks_were_small_enough_and_not_too_small(tmp_path: Path) -> None:
    """Of the sizes tried above the smallest fail and the largest don't, so that every step in between was hit."""
    for options, fails in (
        ("size=4k", True), ("size=76k", False), ("size=1m,nr_inodes=2", True), ("size=1m,nr_inodes=21", False)
    ):
        with small_disk(tmp_path, options) as root:
            assert (refusal(root, SPEC) is not None) is fails, options


def test_files_that_may_not_grow_are_whole_or_not_there(tmp_path: Path) -> None:
    whole = max(path.stat().st_size for path in _written(tmp_path / "whole").rglob("*") if path.is_file())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Hashes are quoted or not, as they begin: sizes differ by a few bytes from run to run.
    for limit in (0, 1, 63, 64, 65, 1000, whole - 100, whole + 100):
        root = tmp_path / f"{limit:05}"  # as long as "whole": paths are part of what is written
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            fails = refusal(root, SPEC) is not None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert fails is (limit < whole)
        check_whole(root)


def _written(root: Path) -> Path:
    compose(root, SPEC)
    return root
