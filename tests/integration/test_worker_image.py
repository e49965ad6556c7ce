# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference worker's image: what is in it, what is not, and how it runs hardened on the real engine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container
from support.redis_server import RedisServer, wait_until
from support.reference_image import build_reference

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = ROOT / "files" / "worker"
LABEL = "io.driftguard.test"
SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER_SHA = "f" * 40
RELEASE = "0123456789ab.89abcdef0123"
BUILT = "2026-01-02T03:04:05Z"
TOKEN = f"token-{uuid4().hex}"
OCR_PACKAGES = ["ghostscript", "poppler-utils", "tesseract-ocr", "tesseract-ocr-eng", "tesseract-ocr-hrv"]
MEGABYTE = 1_000_000
GUARD = "/opt/driftguard/guard/version_guard.py"
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": ""},
    "detach": True,
    "labels": {LABEL: "worker-image"},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}=worker-image"}):
        container.remove(force=True, v=True)
    client.close()


def build(base: str, tag: str, *more: str) -> None:
    """Build it with both secrets."""
    values = {"PIP_CONF": f"[global]\n# {TOKEN}\nretries = 3\n"}
    build_reference(base, tag, "--secret", "id=pip_conf,env=PIP_CONF", *more, **values)


@pytest.fixture(scope="module", params=["base", "ocr"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient, base_reference: str) -> Iterator[dict[str, str]]:
    """Tag by variant."""
    tags = {name: f"driftguard.local/test-worker:{name}-{uuid4().hex[:8]}" for name in ("base", "ocr")}
    arguments = ["--build-arg", f"GIT_SHA={SHA}", "--build-arg", f"BUILD_DATE={BUILT}"]
    for name, tag in tags.items():
        build(base_reference, tag, *arguments, "--build-arg", f"WITH_OCR={'true' if name == 'ocr' else 'false'}")
    yield tags
    for tag in tags.values():
        engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def stamped(
    engine: docker.DockerClient, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base variant with ``image.json``, as the build of the collection ends it."""
    place = tmp_path_factory.mktemp("stamp")
    digest = f"sha256:{'0' * 64}"
    values = {"schema": "1", "fleet": "demo", "variant": "base", "release": RELEASE, "revision": SHA, "created": BUILT}
    document = json.dumps({**values, "baseName": "driftguard.local/base", "baseDigest": digest}, indent=2)
    (place / "image.json").write_text(f"{document}\n", encoding="utf-8")
    (place / "Dockerfile").write_text(f"FROM {images['base']}\nCOPY image.json /etc/driftguard/\n", encoding="utf-8")
    tag = f"{images['base']}-stamped"
    subprocess.run(
        ["docker", "buildx", "build", "--load", "-q", "-t", tag, str(place)], check=True, capture_output=True
    )
    yield tag
    engine.images.remove(tag, force=True)


def host_record(place: Path, sha: str = SHA) -> Path:
    """A guard directory as the deployment leaves it on a host, allowing one release."""
    release = {"releaseId": f"{sha[:12]}.{RELEASE[13:]}", "sha": sha}
    record = {
        "schema": 1,
        "fleet": "demo",
        "generation": 1,
        "phase": "settled",
        "target": release,
        "allowed": [release],
    }
    place.mkdir(mode=0o755)
    shutil.copy(ROOT / "files" / "guard" / "version_guard.py", place)
    (place / "version_guard.py").chmod(0o755)
    (place / "guard.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return place


def production(redis: RedisServer) -> dict[str, str]:
    return {
        "WORKER_TYPE": "extractor",
        "WORKER_FLEET": "demo",
        "WORKER_HOST": "host1",
        "WORKER_ENV": "production",
        "NODE_ENV": "production",
        "REDIS_URL": redis.url,
    }


def start(engine: docker.DockerClient, image: str, redis: RedisServer, **more: Any) -> Container:
    container: Container = engine.containers.run(image, **{**HARDENED, "environment": production(redis), **more})
    return container


def short_id(container: Container) -> str:
    """As ``docker ps`` shows it; the SDK's own is two digits shorter."""
    return str(container.id)[:12]


def guarded(engine: docker.DockerClient, image: str, redis: RedisServer, guard: Path, **more: Any) -> Container:
    """Started through the mounted guard, in front of the image's own entrypoint and command."""
    config = engine.images.get(image).attrs["Config"]
    mount = {str(guard): {"bind": str(Path(GUARD).parent), "mode": "ro"}}
    command = ["--", *config["Entrypoint"], *config["Cmd"]]
    return start(engine, image, redis, entrypoint=["python3", "-IS", GUARD], command=command, volumes=mount, **more)


def log(container: Container) -> str:
    return str(container.logs().decode())


def wait_for_log(container: Container, text: str) -> None:
    def said() -> bool:
        container.reload()
        assert container.status != "exited" or text in log(container), log(container)
        return text in log(container)

    wait_until(said, f"{text!r} in the log", 30)


def ended(container: Container) -> int:
    return int(container.wait(timeout=30)["StatusCode"])


def in_image(image: str, *command: str) -> str:
    run = ["docker", "run", "--rm", "--label", f"{LABEL}=worker-image", "--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


def test_size(engine: docker.DockerClient, images: dict[str, str], variant: str) -> None:
    limit = {"base": 300, "ocr": 450}[variant] * MEGABYTE
    assert engine.images.get(images[variant]).attrs["Size"] <= limit


def test_packages(images: dict[str, str], variant: str) -> None:
    installed = in_image(images[variant], "dpkg-query", "-W", "-f", "${Package} ${Status}\\n")
    packages = {line.split(" ")[0] for line in installed.splitlines() if line.endswith(" installed")}
    assert sorted(packages & set(OCR_PACKAGES)) == (OCR_PACKAGES if variant == "ocr" else [])
    # Recommended, not wanted: fonts, a second PDF stack, the source of everything that grows.
    assert not {name for name in packages if name.startswith(("fonts-noto", "cups", "libgs-dev", "python3-pip"))}


def test_ocr_works(images: dict[str, str]) -> None:
    assert {"eng", "hrv"} <= set(in_image(images["ocr"], "tesseract", "--list-langs").split())
    in_image(images["ocr"], "gs", "--version")
    in_image(images["ocr"], "pdftotext", "-v")


def test_configuration(engine: docker.DockerClient, images: dict[str, str], variant: str) -> None:
    config = engine.images.get(images[variant]).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8081/tcp"]
    assert config["Entrypoint"] == ["/opt/venv/bin/python", "-m"]
    assert config["Cmd"] == ["driftguard_worker"]
    assert {f"GIT_SHA={SHA}", f"BUILD_DATE={BUILT}"} <= set(config["Env"])
    assert config["Healthcheck"] == {
        "Test": ["CMD", "/opt/venv/bin/python", "-m", "driftguard_worker.healthcheck"],
        "Interval": 30_000_000_000,
        "Timeout": 10_000_000_000,
        "StartPeriod": 10_000_000_000,
        "Retries": 3,
    }


def test_another_commit_of_the_same_sources_shares_every_layer(
    engine: docker.DockerClient, images: dict[str, str], base_reference: str
) -> None:
    tag = f"{images['base']}-again"
    build(base_reference, tag, "--build-arg", f"GIT_SHA={OTHER_SHA}", "--build-arg", "WITH_OCR=false")
    try:
        layers = [engine.images.get(name).attrs["RootFS"]["Layers"] for name in (tag, images["base"])]
        assert layers[0] == layers[1]
    finally:
        engine.images.remove(tag, force=True)


def test_installed_compiled_and_nothing_else(images: dict[str, str]) -> None:
    script = """
import importlib.util, json, pathlib, shutil, sys
import driftguard_worker, pydantic
package = pathlib.Path(driftguard_worker.__file__).parent
flags = {(pathlib.Path(path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc")
    .read_bytes()[4]) for path in [*package.glob("*.py"), *pathlib.Path(pydantic.__file__).parent.glob("*.py")]}
print(json.dumps({
    "package": str(package), "flags": sorted(flags), "json": bool(importlib.util.find_spec("json")),
    "present": [name for name in ("pip", "gcc", "git", "make", "uv") if shutil.which(name)],
    "modules": [name for name in ("pip", "setuptools", "pytest") if importlib.util.find_spec(name)],
    "app": [str(path) for path in pathlib.Path("/app").iterdir()],
    "lists": [path.name for path in pathlib.Path("/var/lib/apt/lists").iterdir() if path.is_file()],
    "src": [str(path) for path in pathlib.Path("/").glob("*/Dockerfile*")],
}))
"""
    found = json.loads(in_image(images["base"], "python", "-c", script))
    assert found.pop("package").startswith("/opt/venv/lib/python3.")
    assert set(found.pop("lists")) <= {"lock"}
    # Flag 1: valid by its hash, unchecked (PEP 552); a time would have to survive the copy between stages.
    assert found == {"flags": [1], "json": True, "present": [], "modules": [], "app": [], "src": []}


def test_secrets_leave_no_trace(images: dict[str, str], tmp_path: Path) -> None:
    history = subprocess.run(
        ["docker", "image", "history", "--no-trunc", images["base"]], check=True, capture_output=True, text=True
    ).stdout
    assert TOKEN not in history
    archive = tmp_path / "image.tar"
    subprocess.run(["docker", "save", "-o", str(archive), images["base"]], check=True)
    with tarfile.open(archive) as layers:
        for member in layers:
            content = layers.extractfile(member)
            assert content is None or TOKEN.encode() not in content.read(), member.name
    archive.unlink()


def test_wrong_argument_is_told(base_reference: str) -> None:
    command = ["docker", "buildx", "build", "--progress", "plain", "--build-arg", f"BASE_IMAGE={base_reference}"]
    command += ["--build-arg", "WITH_OCR=yes", "-f", str(CONTEXT / "Dockerfile.worker"), str(CONTEXT)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "WITH_OCR: expected true or false; found yes; remedy: " in found.stderr


def test_runs_hardened_behind_the_guard(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer, tmp_path: Path
) -> None:
    guard = host_record(tmp_path / "guard")
    health = {"test": ["CMD", "/opt/venv/bin/python", "-m", "driftguard_worker.healthcheck"], "interval": 500_000_000}
    container = guarded(engine, stamped, redis_on_bridge, guard, healthcheck=health)
    wait_for_log(container, '"running"')
    assert "[version] Version check passed: " in log(container)
    assert '"address": "0.0.0.0:8081"' in log(container)
    key = f"demo:worker:extractor:{short_id(container)}:version"
    with redis_on_bridge.client() as client:
        record = wait_until(lambda: client.hgetall(key), key)
        assert (record["containerId"], record["releaseId"], record["gitSha"]) == (container.id, RELEASE, SHA)
        assert (record["host"], record["buildDate"]) == ("host1", BUILT)

        def healthy() -> bool:
            container.reload()
            return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

        wait_until(healthy, "the container to be healthy", 20)
        begun = time.monotonic()
        container.stop(timeout=20)
        assert time.monotonic() - begun < 10, "half of the grace time, on however busy a machine"
        assert ended(container) == 0
        assert not client.exists(key)
    assert redis_on_bridge.password not in log(container)


def test_host_network_and_another_hostname_do_not_hide_the_container(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer, tmp_path: Path
) -> None:
    values = {**production(redis_on_bridge), "HEALTH_PORT": "0", "HEALTH_HOST": "127.0.0.1"}
    guard = host_record(tmp_path / "guard")
    container = guarded(
        engine, stamped, redis_on_bridge, guard, network_mode="host", hostname="other", environment=values
    )
    wait_for_log(container, '"running"')
    assert f'"worker": "extractor:{short_id(container)}"' in log(container)
    container.remove(force=True)


@pytest.mark.parametrize("init", [True, False])
def test_signals_reach_the_worker(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer, tmp_path: Path, init: bool
) -> None:
    container = guarded(engine, stamped, redis_on_bridge, host_record(tmp_path / "guard"), init=init)
    wait_for_log(container, '"running"')
    container.kill(signal.SIGINT)
    assert ended(container) == 0
    assert '"stopped"' in log(container)


@pytest.mark.parametrize("through_the_guard", [True, False])
def test_a_release_that_the_host_does_not_allow_opens_no_connection(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer, tmp_path: Path, through_the_guard: bool
) -> None:
    guard = host_record(tmp_path / "guard", OTHER_SHA)
    with redis_on_bridge.client() as client:
        before = client.info("stats")["total_connections_received"]
        if through_the_guard:
            container = guarded(engine, stamped, redis_on_bridge, guard)
        else:
            mount = {str(guard): {"bind": str(Path(GUARD).parent), "mode": "ro"}}
            container = start(engine, stamped, redis_on_bridge, volumes=mount)
        assert ended(container) == 1
        assert client.info("stats")["total_connections_received"] == before
    assert "[version] FATAL: This host does not allow this release!" in log(container)


def test_production_without_a_guard_is_refused(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer
) -> None:
    container = start(engine, stamped, redis_on_bridge)
    assert ended(container) == 1
    assert log(container).startswith(f"[version] FATAL: no guard at {GUARD}")


def test_leaves_nothing_behind_in_its_own_files(
    engine: docker.DockerClient, stamped: str, redis_on_bridge: RedisServer, tmp_path: Path
) -> None:
    guard = host_record(tmp_path / "guard")
    container = guarded(engine, stamped, redis_on_bridge, guard, read_only=False, tmpfs={})
    wait_for_log(container, '"running"')
    assert (container.exec_run(["/opt/venv/bin/python", "-m", "driftguard_worker.healthcheck"])).exit_code == 0
    container.stop(timeout=10)
    # The engine's own mount points are all that may differ.
    allowed = ("/opt", "/opt/driftguard", "/opt/driftguard/guard")
    assert [change for change in container.diff() or [] if change["Path"] not in allowed] == []
