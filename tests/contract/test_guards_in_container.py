# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every case once more as the entrypoint of a real container, and what only a container can show.

Each case of the contract is a container of its own for each guard, started as a deployment starts it: the guard as the
entrypoint, its directory mounted read-only at its real path, a read-only root, a user that isn't root, no capabilities,
no network. Nothing is started by ``docker exec``.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

import docker
import docker.errors
import pytest
from contract.guard_cases import (
    CASES,
    CONTRACT,
    FATAL,
    FIXTURES,
    Outcome,
    command_of,
    complaints,
    copy_guards,
    environment_of,
    write_files,
)
from contract.guard_programs import Workshop, open_workshop

NAMES: dict[str, Any] = CONTRACT["names"]
LABELS = {"io.driftguard.test": "1"}
USER = "10001:10001"
SHA = FIXTURES["environment"]["GIT_SHA"]
MOUNT = NAMES["guardMount"]
OWN_COPY = "/usr/local/lib/driftguard"
INTERPRETERS = {"python": ["/usr/bin/python3", "-IS"], "sh": ["/bin/sh"]}
FILES = {"python": "version_guard.py", "sh": "version_guard.sh"}
AT_ONCE = 2
DOCKERFILE = f"""
FROM {{base}}
COPY guards/ {OWN_COPY}/
COPY stubs/ /usr/local/bin/
COPY worker.py /srv/worker.py
RUN mkdir -p /etc/driftguard
{{stamp}}
USER {USER}
ENTRYPOINT ["/usr/bin/python3", "/srv/worker.py", "two words"]
CMD ["*", "", "from CMD"]
"""
STAMP = f"""
COPY --chmod=0444 image.json {NAMES["imageFile"]}
ENV GIT_SHA={SHA}
"""
# Says how it was started, then waits for its end, as a worker does.
WORKER = """
import json, os, signal, sys
def end(*_):
    print("drained", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
report = {"arguments": sys.argv[1:], "sha": os.environ.get("GIT_SHA"), "uid": os.getuid()}
print("WORKER", json.dumps(report), flush=True)
signal.pause()
"""


@dataclass(frozen=True)
class Images:
    """Two images: one without version and image file, for cases that bring their own, and one as a build stamps it."""

    bare: str
    stamped: str


@dataclass(frozen=True)
class Lab:
    """The engine, the images and a place for files."""

    engine: Any
    images: Images
    shop: Workshop


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        engine = docker.APIClient(version="auto", timeout=60)
        # Its threads would read the environment, which pytest changes between tests.
        engine.trust_env = False
    except docker.errors.DockerException as error:
        pytest.fail(f"expected a Docker Engine, found none: {error}; run make setup (playbooks/bootstrap.yml) first")
    for shop in open_workshop():
        images = Images(*(_build(engine, shop, stamp) for stamp in ("", STAMP)))
        yield Lab(engine, images, shop)
        for image in (images.bare, images.stamped):
            engine.remove_image(image, force=True)
    engine.close()


def _base(engine: Any) -> str:
    """The newest image that was bootstrapped here."""
    images = engine.images(name="driftguard.local/base")
    if not images:
        pytest.fail("expected an image driftguard.local/base, found none: run make setup first")
    return str(max(images, key=lambda image: image["Created"])["Id"])


def _build(engine: Any, shop: Workshop, stamp: str) -> str:
    context = shop.place()
    copy_guards(context / "guards")
    shutil.copytree(shop.stubs, context / "stubs")
    (context / "worker.py").write_text(WORKER, encoding="utf-8")
    (context / "image.json").write_text(FIXTURES["imageFiles"]["new"], encoding="utf-8")
    (context / "image.json").chmod(0o444)
    dockerfile = DOCKERFILE.format(base=_base(engine), stamp=stamp.replace("--chmod=0444 ", ""))
    (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    tag = f"driftguard.local/test-guards:{uuid.uuid4().hex[:12]}"
    lines = list(engine.build(path=str(context), tag=tag, rm=True, forcerm=True, nocache=True, labels=LABELS,
        decode=True))
    assert not [line for line in lines if "error" in line], lines[-1]
    return tag


def create(
    lab: Lab, guard: str, image: str, environment: Mapping[str, str], mounts: Sequence[str], command: Sequence[str],
    entrypoint: Sequence[str] = (),
) -> str:
    """A container as a deployment creates one, with the guard mounted, or else with the image's own copy of it."""
    directory = MOUNT if any(f":{MOUNT}:" in mount for mount in mounts) else OWN_COPY
    host = lab.engine.create_host_config(
        binds=list(mounts), network_mode="none", read_only=True, cap_drop=["ALL"], init=True,
        security_opt=["no-new-privileges"])
    container = lab.engine.create_container(
        image, entrypoint=[*INTERPRETERS[guard], f"{directory}/{FILES[guard]}", "--", *entrypoint],
        command=list(command), environment=[f"{name}={value}" for name, value in environment.items()],
        host_config=host, labels=LABELS)
    return str(container["Id"])


def outcome_of(lab: Lab, container: str) -> Outcome:
    lab.engine.start(container)
    status = lab.engine.wait(container, timeout=60)["StatusCode"]
    out, err = (lab.engine.logs(container, stdout=want, stderr=not want) for want in (True, False))
    return Outcome(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def run_case(lab: Lab, guard: str, case: Mapping[str, Any]) -> Outcome:
    files = write_files(case, lab.shop.place())
    mounts = [f"{files.image.parent}:{Path(NAMES['imageFile']).parent}:ro"]
    if files.record is not None:
        copy_guards(files.record)
        mounts.append(f"{files.record}:{MOUNT}:ro")
    container = create(lab, guard, lab.images.bare, environment_of(case), mounts, command_of(case))
    try:
        return outcome_of(lab, container)
    finally:
        lab.engine.remove_container(container, force=True)


@pytest.fixture(scope="module")
def outcomes(lab: Lab, request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[Outcome]]]:
    """The selected cases under way, a few at once, in the order in which the tests ask for them."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted: list[Any] = [test.callspec.params for test in tests if "outcomes" in test.fixturenames]
    runs = [(run["guard"], run["case"]) for run in wanted]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {(guard, case["name"]): pool.submit(run_case, lab, guard, case) for guard, case in runs}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("guard", INTERPRETERS)
def test_container_decides_as_the_contract_says(
    guard: str, case: dict[str, Any], outcomes: dict[tuple[str, str], Future[Outcome]],
) -> None:
    outcome = outcomes[guard, case["name"]].result()
    assert not complaints(case, outcome), outcome


class Fleet:
    """Containers of the stamped image on a host that allows its release, as they are after a deploy."""

    def __init__(self, lab: Lab, guard: str) -> None:
        self.lab = lab
        self.guard = guard
        record = write_files({"record": "settled on new"}, lab.shop.place()).record
        assert record is not None
        copy_guards(record)
        self.record = record
        self.made: list[str] = []

    def start(
        self, command: Optional[Sequence[str]] = None, environment: Optional[Mapping[str, str]] = None,
        mounted: bool = True,
    ) -> str:
        """Start a worker with the image's own ENTRYPOINT, and its CMD unless the service has a command."""
        image = self.lab.engine.inspect_image(self.lab.images.stamped)["Config"]
        mounts = [f"{self.record}:{MOUNT}:ro"] if mounted else []
        self.made.append(create(
            self.lab, self.guard, self.lab.images.stamped, {"NODE_ENV": "production", **(environment or {})}, mounts,
            image["Cmd"] if command is None else command, image["Entrypoint"]))
        self.lab.engine.start(self.made[-1])
        return self.made[-1]

    def says(self, container: str, text: str) -> str:
        """Wait until a container has said something, and give back all that it said."""
        said = b""
        for piece in self.lab.engine.logs(container, stream=True, follow=True):
            said += piece
            if text.encode() in said:
                return str(said, "utf-8", "replace")
        pytest.fail(f"expected {text!r}, found {said.decode()!r}")

    def close(self) -> None:
        for container in self.made:
            self.lab.engine.remove_container(container, force=True)


@pytest.fixture(params=list(INTERPRETERS))
def fleet(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(lab, request.param)
    yield made
    made.close()


def worker_of(said: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(said.partition("WORKER ")[2].splitlines()[0])
    return report


def test_entrypoint_and_command_of_the_image_survive(fleet: Fleet) -> None:
    report = worker_of(fleet.says(fleet.start(), "WORKER"))
    assert report == {"arguments": ["two words", "*", "", "from CMD"], "sha": SHA, "uid": 10001}


def test_command_of_the_service_replaces_the_images(fleet: Fleet) -> None:
    report = worker_of(fleet.says(fleet.start(["$(id)", "a\nb"]), "WORKER"))
    assert report["arguments"] == ["two words", "$(id)", "a\nb"]


def test_stop_reaches_the_worker_which_ends_in_its_own_way(fleet: Fleet) -> None:
    container = fleet.start()
    fleet.says(container, "WORKER")
    begin = time.monotonic()
    fleet.lab.engine.stop(container, timeout=30)
    assert time.monotonic() - begin < 5.0, "it was killed after the grace time"
    assert fleet.lab.engine.wait(container)["StatusCode"] == 7
    assert b"drained" in fleet.lab.engine.logs(container)


def test_a_restarted_worker_is_refused_once_its_host_has_moved_on(fleet: Fleet) -> None:
    """The guard and its record are read anew at each start, through the mount: no container has to be made anew."""
    container = fleet.start()
    fleet.says(container, "WORKER")
    fleet.lab.engine.stop(container, timeout=30)
    moved = write_files({"record": "settled on old"}, fleet.lab.shop.place()).record
    assert moved is not None
    for name in ("guard.json", "guard.env"):
        (moved / name).replace(fleet.record / name)
    fleet.lab.engine.start(container)
    assert fleet.lab.engine.wait(container)["StatusCode"] == 1
    assert f"{FATAL}This host does not allow this release!" in fleet.lab.engine.logs(container).decode()


@pytest.mark.parametrize(("environment", "title"), [
    ({"GIT_SHA": "f" * 40}, "GIT_SHA was overridden at deploy time!"),
    ({"GIT_SHA": ""}, "GIT_SHA is empty in production!"),
    ({"EXPECTED_GIT_SHA": "f" * 40}, "Version mismatch!"),
    ({"NODE_ENV": "development", "EXPECTED_GIT_SHA": "f" * 40}, "Version mismatch!"),
])
def test_deploy_time_environment_against_a_stamped_image(fleet: Fleet, environment: dict[str, str], title: str) -> None:
    container = fleet.start(environment=environment)
    assert fleet.lab.engine.wait(container)["StatusCode"] == 1
    assert FATAL + title in fleet.lab.engine.logs(container).decode()


def test_guard_copied_into_an_image_obeys_the_mounted_record(fleet: Fleet) -> None:
    """An image's own copy of the guard, on a host that was deployed to, can't be used to get around the record."""
    write = write_files({"record": "settled on old"}, fleet.lab.shop.place()).record
    assert write is not None
    host = fleet.lab.engine.create_host_config(binds=[f"{write}:{MOUNT}:ro"], network_mode="none", init=True)
    own = [*INTERPRETERS[fleet.guard], f"{OWN_COPY}/{FILES[fleet.guard]}", "--"]
    fleet.made.append(fleet.lab.engine.create_container(
        fleet.lab.images.stamped, entrypoint=own, command=["node"], host_config=host, labels=LABELS)["Id"])
    outcome = outcome_of(fleet.lab, fleet.made[-1])
    assert outcome.status == 1
    assert f"{FATAL}This host does not allow this release!" in outcome.stderr


def test_stamped_image_starts_without_a_mounted_record(fleet: Fleet) -> None:
    assert f"Version check passed: {SHA}" in fleet.says(fleet.start(mounted=False), "WORKER")
