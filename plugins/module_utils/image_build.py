# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Executing builds: with BuildKit through ``docker buildx build``, or with the engine's classic builder.

What is built carries a temporary tag until it has passed its checks; only then it is stamped. No ending, a signal
included, leaves a temporary tag or a build that goes on.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import signal
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, TypeVar

from .engine_images import ImageEngine
from .errors import DriftguardError
from .image_request import VariantSpec
from .processes import run, stop_all

BUILD_REPOSITORY = "driftguard.local/build"
BUILDX, CLASSIC, AUTO = "buildx", "classic", "auto"
LEFT_BEHIND_SECONDS = 24 * 3600  # a temporary tag of that age belongs to a run that was killed
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MADE = re.compile(r"-(\d{1,12})-[0-9a-f]{12}\Z")
_MASK = "********"
_SHORTEST_SECRET, _LONGEST_SECRET = 4, 65536

Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """One build.

    :param spec: the variant.
    :param tag: temporary name of what is built.
    :param context: directory with the commit's files; dockerfile is relative to it.
    :param arguments: build arguments, all of them.
    :param secrets: file by id.
    :param labels: without one that is the build's own, two builds of the same content are one image, which goes with
        the temporary name of the first while the second is being named.
    """

    spec: VariantSpec
    tag: str
    context: Path
    dockerfile: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, str]
    labels: Mapping[str, str]
    timeout: int


class Buildx:
    """BuildKit. Always the builder of the default context: only that one sees the engine's own images.

    :param scratch: private directory for metadata files.
    """

    name = BUILDX
    parallel = True

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._halt = threading.Event()

    def build(self, job: Job) -> None:
        """Build and tag.

        :raises DriftguardError: with the last lines of the output, secrets masked.
        """
        options = [f"--tag={job.tag}", f"--file={job.context / job.dockerfile}"]
        options += [f"--build-arg={name}={value}" for name, value in job.arguments.items()]
        options += _labels(job.labels)
        options += [f"--secret=id={name},src={path}" for name, path in job.secrets.items()]
        options += [f"--target={job.spec.target}"] if job.spec.target else []
        self._run(job.spec.name, [*options, str(job.context)], b"", job.timeout, list(job.secrets.values()))

    def stamp(self, name: str, context: bytes, labels: Mapping[str, str], timeout: int) -> str:
        """Build a stamp's context; id of the image, which has no tag yet."""
        return self._run(name, [*_labels(labels), "--file=Dockerfile", "-"], context, timeout, [])

    def halt(self) -> None:
        """Start nothing more and kill what runs."""
        self._halt.set()
        stop_all()

    def _run(self, name: str, options: list[str], stdin: bytes, timeout: int, files: list[str]) -> str:
        if self._halt.is_set():
            raise build_error(name, "it was stopped, because another build failed")
        metadata = self._scratch / f"{name}-{time.monotonic_ns()}.json"
        # --provenance=false: an attestation would make an index of the image, with a digest that changes every time
        done = run(
            ["docker", "buildx", "build", "--builder=default", "--progress=plain", "--provenance=false", "--load",
             f"--metadata-file={metadata}", *options], stdin=stdin, timeout=timeout)
        if done.status != 0:
            raise build_error(name, masked(f"exit status {done.status}: {done.tail()}", files))
        return str(json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"])


class Classic:
    """The engine's own builder, without BuildKit: no secrets, and one build after the other."""

    name = CLASSIC
    parallel = False

    def __init__(self, engine: ImageEngine) -> None:
        self._engine = engine

    def build(self, job: Job) -> None:
        """Build and tag; see :meth:`Buildx.build`."""
        if job.secrets:
            raise DriftguardError(
                "build secrets", "a builder that knows them", "the classic builder",
                "install docker-buildx on the build host (playbooks/bootstrap.yml does), or give no secrets")
        with _told(job.spec.name):
            self._engine.build(
                path=str(job.context), dockerfile=job.dockerfile, tag=job.tag, buildargs=dict(job.arguments),
                target=job.spec.target, labels=job.labels, timeout=job.timeout)

    def stamp(self, name: str, context: bytes, labels: Mapping[str, str], timeout: int) -> str:
        """Build a stamp's context; see :meth:`Buildx.stamp`."""
        with _told(name):
            return self._engine.build(
                fileobj=io.BytesIO(context), custom_context=True, dockerfile="Dockerfile", labels=labels,
                nocache=True, timeout=timeout)

    def halt(self) -> None:
        """Nothing to do: its builds end with the connection of the one thread that waits for them."""


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [f"--label={key}={value}" for key, value in labels.items()]


def builder(choice: str, engine: ImageEngine, scratch: Path) -> Any:
    """The builder that was asked for; auto takes BuildKit where buildx is installed.

    :raises DriftguardError: buildx was asked for and isn't there.
    """
    if choice == CLASSIC:
        return Classic(engine)
    if has_buildx():
        return Buildx(scratch)
    if choice == AUTO:
        return Classic(engine)
    raise DriftguardError(
        "option builder", "docker buildx on this host", "no such command",
        "install docker-buildx (playbooks/bootstrap.yml does), or choose builder: auto")


def has_buildx() -> bool:
    """Whether this host has the docker command with its buildx plugin."""
    try:
        return run(["docker", "buildx", "version"], timeout=30).status == 0
    except DriftguardError:
        return False


def run_all(tasks: Mapping[str, Callable[[], Value]], parallel: bool, halt: Callable[[], None]) -> dict[str, Value]:
    """Run tasks and return their results by name; when one fails the others are stopped, and its error is raised.

    :param parallel: each in a thread of its own; else one after the other, in this one.
    :param halt: makes running tasks end soon, with an error.
    """
    if not parallel or len(tasks) == 1:
        return {name: task() for name, task in tasks.items()}
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = {name: pool.submit(task) for name, task in tasks.items()}
        try:
            ended = wait(futures.values(), return_when=FIRST_EXCEPTION).done
            for future in ended:
                future.result()
        finally:
            _end(list(futures.values()), halt)
    return {name: future.result() for name, future in futures.items()}


def _end(futures: list[Future[Any]], halt: Callable[[], None]) -> None:
    while not all(future.done() for future in futures):
        halt()
        wait(futures, timeout=0.1)


class _Stopped(BaseException):
    """Raised by a signal; no handler of ordinary errors on the way may take it for one."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into an error, so that everything is cleaned up; ignore later ones.

    :raises DriftguardError: such a signal came.
    """
    def stop(number: int, _frame: object) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(signal.Signals(number).name)

    wanted = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    previous = {each: signal.signal(each, stop) for each in wanted}
    try:
        yield
    except _Stopped as stopped:
        raise DriftguardError(
            "this run", "to finish", f"{stopped} stopped it",
            "run it again; nothing unfinished became part of a release") from None
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def temporary_tag(fleet: str, variant: str, now: float) -> str:
    """A name for what is being built; it says when, since engines don't remember when a builder set a tag.

    :param now: seconds since the epoch.
    """
    return f"{BUILD_REPOSITORY}:{fleet}-{variant}-{int(now)}-{secrets.token_hex(6)}"


def sweep(engine: ImageEngine, now: float) -> None:
    """Remove temporary tags that runs which were killed have left behind.

    :param now: seconds since the epoch.
    """
    for tag in engine.tags_of(BUILD_REPOSITORY):
        made = _MADE.search(tag)
        if made and int(made[1]) < now - LEFT_BEHIND_SECONDS:
            engine.remove_image(tag)


def check_secrets(secrets: Mapping[str, str]) -> None:
    """See that each secret's file is there before anything is built.

    :raises DriftguardError: one isn't, or can't be read.
    """
    for name, path in secrets.items():
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise DriftguardError(
                f"secret {name}", f"a readable file {path} on the build host", error.strerror or str(error),
                "put the secret there, or correct its src") from error


def masked(text: str, files: list[str]) -> str:
    """A text without what is in secret files; files over 64 KiB are certificates, not passwords."""
    for path in files:
        with Path(path).open("rb") as stream:
            content = stream.read(_LONGEST_SECRET + 1).decode("utf-8", "replace")
        lines = {line.strip() for line in content.splitlines()} if len(content) <= _LONGEST_SECRET else set()
        for line in sorted(lines, key=len, reverse=True):
            text = text.replace(line, _MASK) if len(line) >= _SHORTEST_SECRET else text
    return text


def build_error(name: str, found: str) -> DriftguardError:
    """The error for a build that failed."""
    return DriftguardError(
        f"build of variant {name}", "the Dockerfile to build", found,
        "mend what the last lines name, commit it, and run again")


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except DriftguardError as error:
        raise build_error(name, error.found) from error
