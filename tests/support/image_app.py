# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application whose images a test builds: a git repository, a fleet of its own, the module run as by Ansible."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import docker
import docker.errors

from .modules import PACKAGE, PROJECT, ModuleRun

__all__ = ["DOCKERFILE", "App", "recorded_engine"]

DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG FLAVOUR=plain
ARG GIT_SHA
RUN echo "$FLAVOUR $GIT_SHA" >/flavour
WORKDIR /app
COPY . .
USER 10077:10088
ENTRYPOINT ["python3", "-S"]
CMD ["/app/worker.py"]
"""
SOCKET = "/var/run/docker.sock"
LABEL_FLEET = "io.driftguard.fleet"
UNCOUNTED = {LABEL_FLEET: "", "io.driftguard.test": "image"}
_REQUEST = re.compile(rb"^(GET|HEAD|POST|PUT|DELETE|PATCH) (\S+) HTTP/1\.1\r$", re.MULTILINE)


class App:
    """One application and its fleet.

    :param base: reference of the base image.
    """

    def __init__(self, directory: Path, base: str) -> None:
        self.fleet = f"t{uuid4().hex[:8]}"
        self.path = directory / self.fleet
        self.base = base
        self.engine = docker.from_env()
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []
        self.temporary = directory / f"{self.fleet}-tmp"
        self.path.mkdir()
        self.temporary.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, dockerfile: str = DOCKERFILE, **files: str) -> str:
        """Commit a new version; its full SHA. An underscore pair in a file's name is a dot."""
        texts = {"Dockerfile": dockerfile, "worker.py": "import time\ntime.sleep(600)\n", "nonce": uuid4().hex}
        for name, text in {**texts, **files}.items():
            (self.path / name.replace("__", ".")).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a version")
        return self.git("rev-parse", "HEAD")

    def options(self, **changed: Any) -> dict[str, Any]:
        """The module's options, with some changed."""
        return {
            "fleet": self.fleet, "source": {"path": str(self.path)}, "base": {"reference": self.base},
            "variants": {"base": {}}, **changed}

    def start(self, check: bool = False, **changed: Any) -> subprocess.Popen[str]:
        """Start the module and leave it running."""
        arguments = {
            **self.options(**changed), "_ansible_check_mode": check, "_ansible_diff": True,
            "_ansible_tmpdir": str(self.temporary)}
        environment = {
            "PYTHONPATH": str(PROJECT / ".collections"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8",
            "HOME": os.environ.get("HOME", "/"), **self.environment}
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", f"{PACKAGE}.worker_image"], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None
        return process

    def build(self, check: bool = False, **changed: Any) -> ModuleRun:
        """Run the module to its end."""
        return self.result(self.start(check, **changed))

    @staticmethod
    def result(process: subprocess.Popen[str]) -> ModuleRun:
        """What a started module said."""
        out, err = process.communicate(timeout=900)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        assert len(lines) == 1, out + err
        assert "Traceback" not in out + err
        return ModuleRun(out + err, json.loads(lines[0]))

    def images(self) -> dict[str, dict[str, Any]]:
        """Images on the engine that carry the fleet's label, by id."""
        found = self.engine.images.list(filters={"label": f"{LABEL_FLEET}={self.fleet}"})
        return {str(image.id): image.attrs for image in found}

    def tags(self) -> dict[str, str]:
        """Every tag on the engine that has the fleet's name in it, temporary ones too, with the image it names."""
        rows = self.engine.api.images()
        return {tag: row["Id"] for row in rows for tag in row["RepoTags"] or () if self.fleet in tag}

    def file(self, image: str, path: str) -> tuple[tarfile.TarInfo, bytes]:
        """A file of an image with its owner and mode."""
        made = self.engine.api.create_container(image, command=["-"], labels=UNCOUNTED)
        try:
            chunks, _stat = self.engine.api.get_archive(made["Id"], path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                member = archive.getmembers()[0]
                stream = archive.extractfile(member)
                return member, stream.read() if stream else b""
        finally:
            self.engine.api.remove_container(made["Id"], v=True, force=True)

    def run(self, image: str, *command: str) -> str:
        """Output of a command in a throw-away container, as the image's user."""
        container = self.engine.containers.run(
            image, entrypoint=list(command), command=[], detach=True, network_disabled=True, labels=UNCOUNTED)
        try:
            # Its end first: an engine that is asked to follow a log may miss what a short life wrote.
            status, said = container.wait()["StatusCode"], container.logs().decode()
        finally:
            container.remove(force=True)
        assert status == 0, said
        return str(said)

    def derive(self, tag: str, lines: str) -> str:
        """Build upon an image with BuildKit and take its tag; id of what came out."""
        subprocess.run(
            ["docker", "buildx", "build", "-q", "--builder=default", "--load", "--provenance=false", "-t", tag, "-"],
            input=f"FROM {tag}\n{lines}\n", check=True, capture_output=True, text=True)
        return str(self.engine.images.get(tag).id)

    def close(self) -> None:
        """Remove everything it made."""
        # Children before their parents, whichever the engine lists first.
        for parents_may_stay in (True, False):
            for name in [*self.tags(), *self.images()]:
                try:
                    self.engine.images.remove(name, force=True)
                except docker.errors.ImageNotFound:
                    continue
                except docker.errors.APIError as error:
                    if error.status_code != 409 or not parents_may_stay:
                        raise
        self.engine.close()
        shutil.rmtree(self.path)
        shutil.rmtree(self.temporary)


@contextmanager
def recorded_engine(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """A socket that passes everything on to the engine; its ``DOCKER_HOST``, and the requests as they come."""
    path, requests = directory / "engine.sock", []  # type: Path, list[str]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_accept, args=(listener, requests), daemon=True).start()
        yield f"unix://{path}", requests
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    path.unlink()


def _accept(listener: socket.socket, requests: list[str]) -> None:
    with suppress(OSError):
        while True:
            client, _address = listener.accept()
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(SOCKET)
            threading.Thread(target=_pass, args=(client, engine, requests), daemon=True).start()
            threading.Thread(target=_pass, args=(engine, client, None), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, requests: list[str] | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if requests is not None:
                requests.extend(f"{method.decode()} {path.decode()}" for method, path in _REQUEST.findall(data))
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
