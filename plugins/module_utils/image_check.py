# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking into an image before it may become part of a release.

Its files are read from outside, so that an image without a shell can be looked into as well; only to learn whether a
guard can run, and as whom, one throw-away container without network is started.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Iterator, Mapping, Optional

from .code_paths import code_paths, covered_code
from .engine_images import FileStat, ImageEngine, ImageFiles
from .errors import DriftguardError
from .image_plan import Probe, Stamp, Wanted, checks_id, seal, stamped
from .names import GUARD_MOUNT, IMAGE_FILE, LABEL_FLEET, SECRETS_MOUNT
from .release_info import GUARD_PYTHON, GUARD_SH

# The empty fleet keeps a container of a stamped image from being counted as one of its fleet's.
THROWAWAY = {LABEL_FLEET: "", "io.driftguard.throwaway": "probe"}
OLDEST_PYTHON = (3, 8)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the engine's own
_STAMP_PLACE = str(PurePosixPath(IMAGE_FILE).parent)
_RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_ASK_PYTHON = (
    "import json, os, sys; print('driftguard', sys.version_info[0], sys.version_info[1], os.getuid(), os.getgid())")
_ASK_SH = (
    'while read -r key real rest; do case "$key" in Uid:) uid=$real;; Gid:) gid=$real;; esac; done </proc/self/status; '
    'echo "driftguard 0 0 $uid $gid"')
_ANSWER = re.compile(r"^driftguard (\d+) (\d+) (\d+) (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """Something of an image that must not be so."""

    expected: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Runner:
    """What can run a guard in an image, and as whom."""

    guard: str
    program: str
    uid: int
    gid: int


class Inside:
    """An image's configuration and files, asked together.

    :param image: ``docker image inspect``.
    """

    def __init__(self, image: Mapping[str, Any], files: ImageFiles) -> None:
        self.config: Mapping[str, Any] = image["Config"]
        self.files = files
        self.command = [*(self.config.get("Entrypoint") or []), *(self.config.get("Cmd") or [])]
        self.working_dir = str(self.config.get("WorkingDir") or "/")
        variables = dict(entry.split("=", 1) for entry in self.config.get("Env") or [] if "=" in entry)
        self._path = [part for part in (variables.get("PATH") or _DEFAULT_PATH).split(":") if part.startswith("/")]

    def end(self, path: str) -> Optional[FileStat]:
        """What an absolute path leads to in the end, links followed."""
        found = self.files.stat(path)
        return self.files.stat(found.target) if found and found.target else found

    def real(self, path: str) -> str:
        """An absolute path with every link in it followed."""
        place = "/"
        for part in PurePosixPath(path).parts[1:]:
            place = str(PurePosixPath(place) / part)
            found = self.files.stat(place)
            place = found.target if found and found.target else place
        return place

    def program(self, name: str) -> Optional[str]:
        """Absolute path of a program, as the engine would find it; None when there is none that can be run."""
        if "/" in name:
            candidates = [str(PurePosixPath(self.working_dir) / name)]
        else:
            candidates = [f"{part.rstrip('/')}/{name}" for part in self._path]
        return next((path for path in candidates if _executable(self.end(path))), None)

    def packages(self) -> Optional[frozenset[str]]:
        """Names of the installed Debian or Alpine packages; None where another package manager keeps them."""
        dpkg = self.files.read("/var/lib/dpkg/status") or b""
        apk = self.files.read("/lib/apk/db/installed") or b""
        parts = [member.name for member in self.files.members("/var/lib/dpkg/status.d") if member.isfile()]
        split = [self.files.read(f"/var/lib/dpkg/{name}") or b"" for name in parts if not name.endswith(".md5sums")]
        if not (dpkg or apk or split) and any(self.files.stat(place) for place in _RPM):
            return None
        return frozenset([*_dpkg(dpkg), *_apk(apk), *(name for text in split for name in _dpkg(text))])


def examine(engine: ImageEngine, plan: Wanted, image: Mapping[str, Any]) -> Runner:
    """Check an image against what its variant demands, and find out how a guard can run in it.

    :param image: ``docker image inspect``.
    :raises DriftguardError: all that is wrong with it, each with its remedy.
    """
    with engine.files(image["Id"], THROWAWAY) as files:
        inside = Inside(image, files)
        _refuse(plan, [
            *configuration(inside), *volumes(inside), *place(inside), *size(plan, image), *contents(plan, inside)])
        python, shell = inside.program("python3") or inside.program("python"), inside.program("sh")
    return _runner(engine, plan, image["Id"], python, shell)


def recheck(engine: ImageEngine, plan: Wanted, image: Mapping[str, Any]) -> None:
    """Check the contents of an image that was stamped when its variant demanded something else.

    :raises DriftguardError: all that is wrong with it.
    """
    with engine.files(image["Id"], THROWAWAY) as files:
        _refuse(plan, [*contents(plan, Inside(image, files))])


def probe(plan: Wanted, runner: Runner, image: Mapping[str, Any], stamp: Stamp) -> Probe:
    """What the stamped image's label will remember."""
    layers = (image.get("RootFS") or {}).get("Layers") or []
    return Probe(
        runner.uid, runner.gid, runner.guard, runner.program, checks_id(plan.spec.checks),
        seal(stamped(image["Config"], stamp), layers))


def refuse_size(plan: Wanted, image: Mapping[str, Any]) -> None:
    """The size budget alone, which needs no look inside.

    :raises DriftguardError: the image is over it.
    """
    _refuse(plan, [*size(plan, image)])


def configuration(inside: Inside) -> Iterator[Problem]:
    """What is wrong with an image's configuration: nothing to run, or triggers that would run after the checks."""
    if not inside.command:
        yield Problem(
            "a command (ENTRYPOINT or CMD)", "none", "end the Dockerfile with ENTRYPOINT or CMD, best in the JSON form")
    elif inside.program(inside.command[0]) is None:
        yield Problem(
            "a command whose program is in the image", repr(inside.command[0]),
            "install it, or mend ENTRYPOINT and CMD")
    if inside.config.get("OnBuild"):
        yield Problem(
            "an image without ONBUILD", f"ONBUILD {inside.config['OnBuild'][0]}",
            "remove it: it would change the image after its checks")


def volumes(inside: Inside) -> Iterator[Problem]:
    """``VOLUME`` lines that would lie over the code: the next container would get the files of the last one."""
    program = inside.program(inside.command[0]) if inside.command else None
    words = [inside.real(word) for word in (*((program,) if program else ()), *inside.command) if word.startswith("/")]
    paths = code_paths(inside.real(inside.working_dir), words)
    for volume in sorted(inside.config.get("Volumes") or {}):
        real = inside.real(volume)
        covered = covered_code(real, paths)
        reserved = next((mount for mount in (GUARD_MOUNT, SECRETS_MOUNT) if (real + "/").startswith(mount + "/")), None)
        if covered or reserved:
            yield Problem(
                "no VOLUME over the code", f"VOLUME {volume} covers {covered or reserved}",
                "remove the line, or declare it on a directory for data such as /var/lib/<name>: "
                "a volume keeps old code through every deploy")


def place(inside: Inside) -> Iterator[Problem]:
    """What is wrong with the directory that the stamp goes to, where the image has it already."""
    for number, member in enumerate(inside.files.members(_STAMP_PLACE)):
        fits = member.isdir() if number == 0 else member.isfile() or member.isdir()
        if not fits or member.uid != 0 or member.mode & 0o022:
            yield Problem(
                f"{_STAMP_PLACE} absent, or root's and not writable by others",
                f"{member.name} (uid {member.uid}, mode {member.mode & 0o7777:04o})",
                "remove it from the image: the stamp in it must not be replaceable")


def size(plan: Wanted, image: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether the image is over its budget."""
    limit = plan.spec.checks.max_size
    if limit is not None and int(image["Size"]) > limit:
        yield Problem(
            f"at most {limit / 1e6:.1f} MB", f"{int(image['Size']) / 1e6:.1f} MB",
            "leave build tools and caches in an earlier stage, or raise max_size")


def contents(plan: Wanted, inside: Inside) -> Iterator[Problem]:
    """What must be in the image and isn't, or must not be and is."""
    checks = plan.spec.checks
    names = [entry for entry in (*checks.must_contain, *checks.must_not_contain) if not entry.startswith("/")]
    packages = inside.packages() if names else frozenset()
    if packages is None:
        yield Problem(
            "a package list of dpkg or apk", "an image of another package manager",
            f"name paths instead of {', '.join(names)} in must_contain and must_not_contain")
        return
    for entry in checks.must_contain:
        if not _contains(inside, packages, entry):
            yield Problem(
                f"{entry} in the image", f"{entry} is missing",
                "install it in this variant, or drop it from must_contain")
    for entry in checks.must_not_contain:
        if _contains(inside, packages, entry):
            yield Problem(
                f"no {entry} in the image", f"{entry} is there",
                "keep it out of this variant, or out of must_not_contain")


def _contains(inside: Inside, packages: frozenset[str], entry: str) -> bool:
    if entry.startswith("/"):
        return inside.end(entry) is not None
    return entry in packages or inside.program(entry) is not None


def _executable(found: Optional[FileStat]) -> bool:
    return found is not None and not found.directory and found.mode & 0o111 != 0


def _dpkg(status: bytes) -> Iterator[str]:
    for paragraph in status.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        if "Package" in fields and fields.get("Status", "install ok installed").endswith(" installed"):
            yield fields["Package"]


def _apk(installed: bytes) -> Iterator[str]:
    return (line[2:] for line in installed.decode("utf-8", "replace").splitlines() if line.startswith("P:"))


def _runner(
    engine: ImageEngine, plan: Wanted, image_id: str, python: Optional[str], shell: Optional[str],
) -> Runner:
    said: list[str] = []
    for guard, program, flags, fits in (
        (GUARD_PYTHON, python, ("-I", "-S", "-c", _ASK_PYTHON), _recent), (GUARD_SH, shell, ("-c", _ASK_SH), _any),
    ):
        if program is None:
            said.append(f"no {guard}")
            continue
        answer, output = _ask(engine, image_id, [program, *flags])
        if answer and fits(answer):
            return Runner(guard, program, int(answer[3]), int(answer[4]))
        said.append(f"{program}: {output}")
    raise DriftguardError(
        _subject(plan), "Python 3.8 or newer with its json module, or a POSIX sh, that the image's user can run",
        "; ".join(said), "build upon an image with one of them, since without it no guard can run before the worker "
        "(python3-minimal lacks json, a distroless image has neither)")


def _ask(engine: ImageEngine, image_id: str, command: list[str]) -> tuple[Optional[re.Match[str]], str]:
    try:
        _status, output = engine.run_once(image_id, command, THROWAWAY)
    except DriftguardError as error:
        return None, error.found
    return _ANSWER.search(output), (output.strip().splitlines() or ["no output"])[-1][-200:]


def _recent(answer: re.Match[str]) -> bool:
    return (int(answer[1]), int(answer[2])) >= OLDEST_PYTHON


def _any(_answer: re.Match[str]) -> bool:
    return True


def _subject(plan: Wanted) -> str:
    return f"variant {plan.spec.name} of fleet {plan.fleet} at {plan.sha[:12]}"


def _refuse(plan: Wanted, problems: list[Problem]) -> None:
    if problems:
        raise DriftguardError(_subject(plan), *(
            "; ".join(dict.fromkeys(getattr(problem, part) for problem in problems))
            for part in ("expected", "found", "remedy")))
