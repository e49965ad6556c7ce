# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is checked of an image, told apart case by case; the files are a table instead of an image."""

from __future__ import annotations

import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Iterator, Mapping

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import image_check
from ansible_collections.driftguard.workers.plugins.module_utils.engine_images import FileStat
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_check import Inside
from ansible_collections.driftguard.workers.plugins.module_utils.image_dockerfile import Bases
from ansible_collections.driftguard.workers.plugins.module_utils.image_plan import Wanted
from ansible_collections.driftguard.workers.plugins.module_utils.image_request import Checks, VariantSpec

PLAN = Wanted("demo", "0123456789ab.89abcdef0123", "0123456789abcdef0123456789abcdef01234567",
              VariantSpec("base", "demo-worker"), Bases(None, ()), ("demo-worker:x",), "debian")
PROGRAM = FileStat(0o755, directory=False, target=None)
PLAIN = FileStat(0o644, directory=False, target=None)
DIRECTORY = FileStat(0o755, directory=True, target=None)


@dataclass
class Files:
    """An image's files: what is there, links and contents."""

    there: dict[str, FileStat] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    tar: dict[str, list[tarfile.TarInfo]] = field(default_factory=dict)

    def stat(self, path: str) -> FileStat | None:
        return self.there.get(path)

    def read(self, path: str) -> bytes | None:
        return self.contents.get(path)

    def members(self, path: str) -> list[tarfile.TarInfo]:
        return self.tar.get(path, [])


def link(target: str) -> FileStat:
    return FileStat(0o777, directory=False, target=target)


def inside(files: Files | None = None, **config: Any) -> Inside:
    made = files or Files({"/usr/bin/python3": PROGRAM})
    plain = {"Cmd": ["python3", "-m", "demo"], "WorkingDir": "/srv", "Env": ["PATH=/usr/local/bin:/usr/bin"]}
    return Inside({"Config": {**plain, **config}}, made)  # type: ignore[arg-type]


class TestProgram:
    def test_the_first_on_the_path_that_can_be_run(self) -> None:
        files = Files({
            "/usr/local/bin/x": PLAIN, "/a/x": DIRECTORY, "relative/x": PROGRAM, "/usr/bin/x": PROGRAM,
            "/bin/x": PROGRAM})
        assert inside(files, Env=["PATH=/usr/local/bin:/a:relative:/usr/bin:/bin"]).program("x") == "/usr/bin/x"

    def test_without_path_the_engines_own(self) -> None:
        assert inside(Files({"/sbin/x": PROGRAM}), Env=None).program("x") == "/sbin/x"

    def test_a_name_with_a_slash_is_below_the_working_directory(self) -> None:
        files = Files({"/srv/run": PROGRAM, "/abs/run": PROGRAM})
        assert inside(files).program("./run") == "/srv/run"
        assert inside(files).program("/abs/run") == "/abs/run"

    def test_links_are_followed_and_dangling_ones_are_nothing(self) -> None:
        files = Files({"/usr/bin/x": link("/opt/x"), "/opt/x": PROGRAM, "/usr/bin/y": link("/gone")})
        assert inside(files).program("x") == "/usr/bin/x"
        assert inside(files).program("y") is None


class TestConfiguration:
    def test_an_image_that_can_be_run_is_fine(self) -> None:
        assert list(image_check.configuration(inside())) == []

    @pytest.mark.parametrize(("config", "expected"), [
        ({"Cmd": None}, "a command"), ({"Cmd": [], "Entrypoint": []}, "a command"),
        ({"Cmd": ["missing"]}, "whose program is in the image"), ({"Entrypoint": ["/nope"]}, "whose program"),
        ({"OnBuild": ["RUN x"]}, "without ONBUILD")])
    def test_what_cannot_be_run_is_not(self, config: dict[str, Any], expected: str) -> None:
        (problem,) = image_check.configuration(inside(**config))
        assert expected in problem.expected
        assert problem.remedy


class TestVolumes:
    @pytest.mark.parametrize("volume", [
        "/srv", "/srv/", "/srv/data", "/", "/etc/driftguard", "/etc/driftguard/image.json", "/etc",
        "/opt/driftguard/guard", "/opt/driftguard", "/run/secrets", "/run/secrets/x", "/usr/bin", "/usr",
        "/usr/local/lib/python3.11/site-packages", "/opt/code", "/data/../srv", "/code/dist"])
    def test_a_volume_over_the_code_is_refused(self, volume: str) -> None:
        image = inside(Cmd=["python3", "/code/dist/worker.py"], Volumes={volume: {}})
        (problem,) = image_check.volumes(image)
        assert problem.found.startswith(f"VOLUME {volume} covers /")

    @pytest.mark.parametrize("volume", ["/var/lib/demo", "/data", "/srv2", "/tmp", "/etc/ssl", "/code/data"])
    def test_a_volume_for_data_is_fine(self, volume: str) -> None:
        image = inside(Cmd=["python3", "/code/dist/worker.py"], Volumes={volume: {}})
        assert list(image_check.volumes(image)) == []

    def test_a_link_does_not_hide_it(self) -> None:
        files = Files({"/usr/bin/python3": PROGRAM, "/data": link("/srv"), "/alias": link("/real"), "/real": DIRECTORY})
        assert list(image_check.volumes(inside(files, Volumes={"/data/x": {}})))
        assert list(image_check.volumes(inside(files, WorkingDir="/alias/app", Volumes={"/real": {}})))

    def test_without_a_working_directory_data_may_lie_anywhere(self) -> None:
        assert list(image_check.volumes(inside(WorkingDir="", Volumes={"/data": {}}))) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, uid: int = 0, mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.uid, made.mode = kind, uid, mode
    return made


class TestPlace:
    @pytest.mark.parametrize("members", [
        [], [member("driftguard", tarfile.DIRTYPE, mode=0o755)],
        [member("driftguard", tarfile.DIRTYPE, mode=0o755), member("driftguard/image.json", mode=0o444)]])
    def test_absent_or_roots_own(self, members: list[tarfile.TarInfo]) -> None:
        assert list(image_check.place(inside(Files(tar={"/etc/driftguard": members})))) == []

    @pytest.mark.parametrize("members", [
        [member("driftguard", tarfile.DIRTYPE, uid=1000, mode=0o755)],
        [member("driftguard", tarfile.DIRTYPE, mode=0o777)], [member("driftguard", tarfile.DIRTYPE, mode=0o775)],
        [member("driftguard", tarfile.SYMTYPE)], [member("driftguard")],
        [member("driftguard", tarfile.DIRTYPE, mode=0o755), member("driftguard/image.json", tarfile.SYMTYPE)],
        [member("driftguard", tarfile.DIRTYPE, mode=0o755), member("driftguard/image.json", uid=5)]])
    def test_a_place_where_the_stamp_could_be_replaced(self, members: list[tarfile.TarInfo]) -> None:
        (problem,) = image_check.place(inside(Files(tar={"/etc/driftguard": members})))
        assert "must not be replaceable" in problem.remedy


DPKG = (
    b"Package: tesseract-ocr\nStatus: install ok installed\nDescription: x\n Package: inner\n\n"
    b"Package: removed\nStatus: deinstall ok config-files\n\nPackage: half\nStatus: install ok half-installed\n")


def wrong(files: Files, must: tuple[str, ...] = (), must_not: tuple[str, ...] = ()) -> list[str]:
    plan = replace(PLAN, spec=replace(PLAN.spec, checks=Checks(must, must_not)))
    return [problem.found for problem in image_check.contents(plan, inside(files))]


class TestContents:
    FILES = Files(
        {"/usr/bin/gs": PROGRAM, "/usr/bin/data": PLAIN, "/etc/x": link("/etc/y"), "/etc/y": PLAIN,
         "/etc/z": link("/n")}, {"/var/lib/dpkg/status": DPKG})

    @pytest.mark.parametrize("entry", ["tesseract-ocr", "gs", "/etc/x", "/usr/bin/data"])
    def test_what_is_there(self, entry: str) -> None:
        assert wrong(self.FILES, must=(entry,)) == []
        assert wrong(self.FILES, must_not=(entry,)) == [f"{entry} is there"]

    @pytest.mark.parametrize("entry", ["removed", "half", "inner", "tesseract", "data", "/etc/z", "/nope"])
    def test_what_is_not(self, entry: str) -> None:
        assert wrong(self.FILES, must=(entry,)) == [f"{entry} is missing"]
        assert wrong(self.FILES, must_not=(entry,)) == []

    def test_alpine(self) -> None:
        files = Files(contents={"/lib/apk/db/installed": b"C:Q1\nP:tesseract-ocr\nV:5\n\nP:musl\n"})
        assert wrong(files, must=("tesseract-ocr", "musl"), must_not=("C", "V")) == []

    def test_packages_that_are_kept_in_files_of_their_own(self) -> None:
        names = [member("status.d", tarfile.DIRTYPE), member("status.d/tzdata"), member("status.d/tzdata.md5sums")]
        files = Files(
            contents={"/var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 1\n"},
            tar={"/var/lib/dpkg/status.d": names})
        assert wrong(files, must=("tzdata",)) == []

    def test_a_package_list_that_cannot_be_read_is_no_proof_of_absence(self) -> None:
        files = Files({"/var/lib/rpm": DIRECTORY, "/usr/bin/gs": PROGRAM})
        assert wrong(files, must_not=("ghostscript",)) == ["an image of another package manager"]
        assert wrong(files, must=("/usr/bin/gs",)) == []


@pytest.mark.parametrize(("limit", "fits"), [(None, True), (100, True), (99, False), (0, False)])
def test_the_size_budget(limit: int | None, fits: bool) -> None:
    plan = replace(PLAN, spec=replace(PLAN.spec, checks=Checks(max_size=limit)))
    if fits:
        image_check.refuse_size(plan, {"Size": 100})
        return
    with pytest.raises(DriftguardError, match="variant base of fleet demo at 0123456789ab: expected at most"):
        image_check.refuse_size(plan, {"Size": 100})


class FakeEngine:
    """Answers probes from a table: program to what it says, or the engine's refusal."""

    def __init__(self, files: Files, answers: Mapping[str, str | DriftguardError]) -> None:
        self._files = files
        self._answers = answers
        self.asked: list[str] = []

    @contextmanager
    def files(self, _image: str, _labels: Mapping[str, str]) -> Iterator[Files]:
        yield self._files

    def run_once(self, _image: str, command: list[str], _labels: Mapping[str, str]) -> tuple[int, str]:
        self.asked.append(command[0])
        answer = self._answers[command[0]]
        if isinstance(answer, DriftguardError):
            raise answer
        return 0, answer


BOTH = Files({"/usr/bin/python3": PROGRAM, "/usr/bin/sh": PROGRAM})
IMAGE = {"Id": "sha256:x", "Size": 1, "Config": {"Cmd": ["python3"], "Env": ["PATH=/usr/bin"]}}
REFUSED = DriftguardError("engine", "an answer", "unable to find user", "x")


def examined(files: Files, answers: Mapping[str, str | DriftguardError]) -> image_check.Runner:
    return image_check.examine(FakeEngine(files, answers), PLAN, IMAGE)  # type: ignore[arg-type]


class TestGuard:
    def test_python_where_it_is_whole(self) -> None:
        found = examined(BOTH, {"/usr/bin/python3": "noise\ndriftguard 3 8 10001 10002\n"})
        assert (found.guard, found.program, found.uid, found.gid) == ("python", "/usr/bin/python3", 10001, 10002)

    @pytest.mark.parametrize(
        "answer", ["driftguard 3 7 1 1", "driftguard 2 7 1 1", "ModuleNotFoundError: json", REFUSED])
    def test_else_the_shell(self, answer: str | DriftguardError) -> None:
        found = examined(BOTH, {"/usr/bin/python3": answer, "/usr/bin/sh": "driftguard 0 0 5 6"})
        assert (found.guard, found.program, found.uid, found.gid) == ("sh", "/usr/bin/sh", 5, 6)

    @pytest.mark.parametrize("answers", [
        {"/usr/bin/python3": "x", "/usr/bin/sh": "x"}, {"/usr/bin/python3": REFUSED, "/usr/bin/sh": REFUSED}])
    def test_else_nothing_can_run_it(self, answers: dict[str, str | DriftguardError]) -> None:
        with pytest.raises(DriftguardError) as caught:
            examined(BOTH, answers)
        assert "/usr/bin/python3: " in caught.value.found
        assert "/usr/bin/sh: " in caught.value.found
        assert "distroless" in caught.value.remedy

    def test_all_problems_are_named_at_once_and_nothing_is_started(self) -> None:
        spec = replace(PLAN.spec, checks=Checks(("a", "b"), (), 0))
        engine = FakeEngine(BOTH, {})
        with pytest.raises(DriftguardError) as caught:
            image_check.examine(engine, replace(PLAN, spec=spec), IMAGE)  # type: ignore[arg-type]
        assert caught.value.found == "0.0 MB; a is missing; b is missing"
        assert engine.asked == []
