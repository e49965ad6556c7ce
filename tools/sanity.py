# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, as far as it runs from a checkout: on the built collection, with the Pythons this machine has.

ansible-test wants a path ``ansible_collections/<namespace>/<name>``, a get-pip script from a site that a closed
network doesn't have, and takes any ``python3.x`` on PATH for one that works. It gets the first by installing what
``ansible-galaxy collection build`` makes (so that this is checked too), the second as a small stand-in beside the
locked pip wheel in a home directory of its own, the third as a directory of links to interpreters that do run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .paths import BUILD, CACHE, PYTHON, REQUIREMENTS, ROOT, VENV
from .processes import output_of, tool_environment
from .python_packages import INDEX_REMEDY, pip_download
from .steps import digest, report

PLACE = BUILD / "sanity"
COLLECTION = PLACE / "ansible_collections" / "driftguard" / "workers"
HOME = CACHE / "ansible-test"
PIP_LOCK = REQUIREMENTS / "ansible-test.txt"
PIP_CACHE = HOME / ".ansible" / "test" / "cache"
LINKS = HOME / "python"
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
STAND_IN = '''\
"""In place of get-pip: installs the pip wheel that lies beside this file, with that wheel's own code."""
import pathlib
import runpy
import sys

wheel = str(next(pathlib.Path(__file__).resolve().parent.glob("pip-*.whl")))
sys.path.insert(0, wheel)
sys.argv = ["pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''


def main() -> int:
    """Install the built collection into build/ and run every sanity test on it."""
    try:
        _prepare_pip()
        _link_pythons()
        _install_collection()
        return _call([str(VENV / "bin" / "ansible-test"), "sanity", "--color", "no", *sys.argv[1:]], COLLECTION)
    except DriftguardError as error:
        report(error)
        return 1


def _prepare_pip() -> None:
    stamp = HOME / "pip.stamp"
    if stamp.exists() and stamp.read_text() == digest([PIP_LOCK], STAND_IN):
        return
    shutil.rmtree(HOME, ignore_errors=True)
    PIP_CACHE.mkdir(parents=True)
    _must(pip_download(PIP_LOCK, PIP_CACHE), INDEX_REMEDY)
    version = next(PIP_CACHE.glob("pip-*.whl")).name.split("-")[1].replace(".", "_")
    (PIP_CACHE / f"get_pip_{version}.py").write_text(STAND_IN)
    settings = HOME / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(_pip_settings())
    stamp.write_text(digest([PIP_LOCK], STAND_IN))


def _pip_settings() -> str:
    """The settings pip has here, from whichever file or variable, as one file for the other home directory."""
    settings = {}
    listed = (output_of([str(PYTHON), "-m", "pip", "config", "list"]) or "").splitlines()
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):  # variables win over files
        key, value = line.split("=", 1)
        settings[key.rpartition(".")[2]] = value.strip("'")
    return "\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items()), ""])


def _link_pythons() -> None:
    shutil.rmtree(LINKS, ignore_errors=True)
    LINKS.mkdir(parents=True)
    for version in VERSIONS:
        for candidate in _candidates(version):
            if output_of([str(candidate), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]) == version:
                (LINKS / f"python{version}").symlink_to(candidate)
                break


def _candidates(version: str) -> Iterator[Path]:
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)
    yield Path("/usr/bin", f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    yield from sorted(versions.glob(f"{version}.*/bin/python{version}"))


def _install_collection() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    galaxy = str(VENV / "bin" / "ansible-galaxy")
    remedy = "mend galaxy.yml or what the lines above name"
    _must([galaxy, "collection", "build", "--output-path", str(PLACE), str(ROOT)], remedy)
    archive = next(PLACE.glob("*.tar.gz"))
    # Forced, because the checkout itself is an installed collection of that version: galaxy would find nothing to do,
    # and ansible-test would then check an empty place without a word.
    install = [galaxy, "collection", "install", "--force", "--no-deps", "--offline", "-p", str(PLACE), str(archive)]
    _must(install, remedy)
    # A repository of its own: in the outer one build/ is ignored, and ansible-test would find nothing to check.
    _must(["git", "init", "--quiet", str(COLLECTION)], "mend git on this machine")


def _must(command: list[str], remedy: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=tool_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise DriftguardError(" ".join(command[:3]), "exit status 0", f"exit status {done.returncode}: {said}", remedy)


def _call(command: list[str], place: Path) -> int:
    path = os.pathsep.join((str(LINKS), str(VENV / "bin"), *SYSTEM_PATH))
    environment = {**tool_environment(), "HOME": str(HOME), "PATH": path}
    del environment["ANSIBLE_CONFIG"]  # it names a collections path that is not this copy's
    return subprocess.run(command, cwd=place, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
