# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Startup guard of a worker: proves which commit it is before it may connect to anything.

    python3 -IS version_guard.py [--record DIR] [--image-file FILE] -- COMMAND [ARG...]

checks the five rules of docs/guards.md and replaces itself by the command. Workers in Python may instead call
run_startup_guards() first of all. version_guard.sh is the same for images without Python; the cases that hold the two
together are in contract.json.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # "typing" would cost as much time as the checks
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, NoReturn, Optional, Sequence, Tuple

IMAGE_FILE = "/etc/driftguard/image.json"
IMAGE_KEYS = ("schema", "fleet", "variant", "release", "revision", "created", "baseName", "baseDigest")
GUARD_MOUNT = "/opt/driftguard/guard"
RECORD_FILES = ("guard.json", "guard.env")
DEV_RUNNERS = (
    "tsx", "ts-node", "ts-node-dev", "ts-node-esm", "ts-node-script", "ts-node-cwd", "ts-node-transpile-only",
    "ts-script", "tsnd", "nodemon", "node-dev", "vite-node", "babel-node", "swc-node", "esbuild-register",
    "esbuild-runner", "esno", "watchfiles", "-mwatchfiles", "watchmedo", "watchdog.watchmedo", "-mwatchdog.watchmedo",
    "--reload", "--watch", "--watch-path", "flask --debug",
)
SEPARATORS = " \t\n/=,:;&|()<>\"'`@{}[]\\$"
OPTION_VARIABLES = ("NODE_OPTIONS",)
HEX = "0123456789abcdef"
PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._:/@+,=-"
SHOWN_BYTES = 80
MAX_LINES = 64
MAX_LINE_BYTES = 512
MAX_FILE_BYTES = 65536
MAX_ALLOWED = 32
MAX_GENERATION = 10**15
EXIT_REFUSED, EXIT_USAGE, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 1, 64, 126, 127
FLAGS = ("--help", "--check", "--supervise", "--health")
USAGE = """usage: version_guard [--check | --supervise] [--record DIR] [--image-file FILE] -- COMMAND [ARG...]
       version_guard --health
Proves that this worker may start here, then becomes COMMAND.
  --check            check only; COMMAND may be left out
  --supervise        stay as COMMAND's parent: register it, and stop it when its release is no longer allowed
  --health           ask a supervisor on this machine how it is: exit status 0 or 1
  --record DIR       directory of the host record (default: /opt/driftguard/guard, else beside the guard)
  --image-file FILE  file baked into the image (default: /etc/driftguard/image.json)
Exit status: 1 refused, 64 wrong usage, 126 command not executable, 127 command not found, else the command's own.
"""


class Report:
    """Says what was found; refuses where the rules are enforced and warns where they are not."""

    def __init__(self, enforced: bool) -> None:
        self.enforced = enforced
        self.clean = True

    def refuse(self, title: str, *lines: str) -> None:
        """Name a violated rule: ends the process with status 1 when enforced, else returns after a warning."""
        if self.enforced:
            say(2, "FATAL: " + title, *lines)
            raise SystemExit(EXIT_REFUSED)
        self.clean = False
        title = title[:-1]
        if title.endswith(" in production"):
            title = title[:-len(" in production")]
        say(2, "WARNING: " + title + " (not enforced outside production)")


def run_startup_guards(
    environment: Optional[Mapping[str, str]] = None,
    command: Optional[Sequence[str]] = None,
    image_file: str = IMAGE_FILE,
    record_directory: Optional[str] = None,
) -> None:
    """Check every rule; return when the worker may start.

    :param environment: the variables to judge; default os.environ.
    :param command: the command line to judge; default this process's own.
    :param image_file: the file baked into the image.
    :param record_directory: the directory of the host record; default: where one is found (see docs/guards.md).
    :raises SystemExit: with status 1, after the reason was written to stderr.
    """
    environment = os.environ if environment is None else environment
    command = getattr(sys, "orig_argv", sys.argv) if command is None else command
    texts = {name: _bytes_as_text(os.fsencode(environment[name])) for name in environment}
    _guard(texts, [_bytes_as_text(os.fsencode(word)) for word in command], image_file, record_directory)


def _guard(
    environment: Mapping[str, str], command: Sequence[str], image_file: str, record_directory: Optional[str],
) -> None:
    directory = find_record() if record_directory is None else record_directory
    production = "production" in (environment.get("WORKER_ENV"), environment.get("NODE_ENV"))
    report = Report(production or directory is not None)
    _check_runner(report, environment, command)
    sha = environment.get("GIT_SHA")
    expected = environment.get("EXPECTED_GIT_SHA")
    say(1, "Worker: " + shown(environment.get("WORKER_TYPE") or "unknown"),
        "GIT_SHA: " + (shown(sha or "") or "(not set)"),
        "EXPECTED_GIT_SHA: " + (shown(expected or "") or "(not set)"))
    _check_versions(report, sha, expected, image_file, directory)
    if report.clean:
        say(1, "Version check passed: " + shown(sha or ""))
    else:
        say(1, "Version not enforced outside production")


def find_record() -> Optional[str]:
    """Where the host record has to be; None where no host record is mounted."""
    if os.path.lexists(GUARD_MOUNT):
        return GUARD_MOUNT
    here = os.path.dirname(os.path.abspath(__file__))
    return here if any(os.path.lexists(here + "/" + name) for name in RECORD_FILES) else None


def _check_runner(report: Report, environment: Mapping[str, str], command: Sequence[str]) -> None:
    places = [("the command", " ".join(command))]
    places += [(name, environment[name]) for name in OPTION_VARIABLES if name in environment]
    for place, text in places:
        runner = find_runner(text)
        if runner is not None:
            report.refuse(
                "Running via " + runner + " in production!",
                "  Expected: the built program itself, started without a development runner",
                "  Found:    " + runner + " in " + place,
                "  Remedy:   name the built program in the service's command or the image's CMD, for example"
                " node dist/worker.js, not npx tsx src/worker.ts")
            return


def find_runner(text: str) -> Optional[str]:
    """The first of DEV_RUNNERS whose words are all among the words of a command line, or None."""
    words = set(text.translate(dict.fromkeys(map(ord, SEPARATORS), " ")).split(" "))
    for runner in DEV_RUNNERS:
        if words.issuperset(runner.split(" ")):
            return runner
    return None


def _check_versions(
    report: Report, sha: Optional[str], expected: Optional[str], image_file: str, directory: Optional[str],
) -> None:
    """Rules 2 to 5; outside production the first violation ends them, since the later ones would only repeat it."""
    image, problem = load(image_file, parse_image)
    unstamped = problem == "missing" and directory is None
    if sha is None or not _is_hex(sha, 40):
        _refuse_sha(report, sha)
    elif problem and not unstamped:
        _refuse_image(report, image_file, problem)
    elif image and image[1] != sha:
        _refuse_override(report, sha, image[1], image_file)
    else:
        if unstamped:
            say(1, "NOTE: " + shown(image_file) + " is missing and no host record is mounted:"
                " GIT_SHA is taken on trust")
        if expected and expected != sha:
            _refuse_mismatch(report, sha, expected)
        elif directory is not None:
            _check_record(report, directory, ":".join(image))


def _refuse_sha(report: Report, sha: Optional[str]) -> None:
    fault = "is not a full commit SHA"
    if not sha:
        fault = "is not set" if sha is None else "is empty"
    elif sha == "unknown":
        fault = "is 'unknown'"
    report.refuse(
        "GIT_SHA " + fault + " in production!",
        "  Expected: the full commit SHA from the image build, 40 lowercase hexadecimal digits",
        "  Found:    " + ("'" + shown(sha) + "'" if sha else "nothing"),
        "This worker CANNOT run - may be stale code.",
        "  Remedy:   build the image with the worker_image module or --build-arg GIT_SHA=<full SHA>;"
        " never set GIT_SHA at deploy time")


def _refuse_image(report: Report, image_file: str, problem: str) -> None:
    report.refuse(
        "Image file is " + problem + "!",
        "  Expected: " + shown(image_file) + " as the image build wrote it",
        "  Found:    it is " + problem,
        "This worker CANNOT run - may be stale code.",
        "  Remedy:   build the image with the worker_image module, and mount nothing over this file")


def _refuse_override(report: Report, sha: str, baked: str, image_file: str) -> None:
    report.refuse(
        "GIT_SHA was overridden at deploy time!",
        "  Expected: " + baked + " (baked into " + shown(image_file) + ")",
        "  Found:    " + sha + " (environment)",
        "This worker CANNOT run - may be stale code.",
        "  Remedy:   remove GIT_SHA from the service's environment and env files; it comes from the image alone")


def _refuse_mismatch(report: Report, sha: str, expected: str) -> None:
    remedy = "recreate the container from the expected commit's image, or deploy the commit this image was built from"
    if len(expected) >= 7 and sha.startswith(expected):
        remedy = "set EXPECTED_GIT_SHA to all 40 digits; a short SHA is never compared"
    report.refuse(
        "Version mismatch!",
        "  Image SHA:    " + sha,
        "  Expected SHA: " + shown(expected),
        "This worker is running STALE code. Exiting.",
        "  Remedy:   " + remedy)


def _check_record(report: Report, directory: str, own: str) -> None:
    path = directory + "/" + RECORD_FILES[0]
    allowed, problem = load(path, parse_record)
    if allowed is None:
        report.refuse(
            "Host record is " + problem + "!",
            "  Expected: " + shown(path) + " as the deployment wrote it",
            "  Found:    it is " + problem,
            "This worker CANNOT run - nothing says which release this host allows.",
            "  Remedy:   deploy to this host again; its guard directory is mounted read-only at " + GUARD_MOUNT)
    elif own not in allowed:
        report.refuse(
            "This host does not allow this release!",
            "  Expected: " + " or ".join(allowed),
            "  Found:    " + own + " (this image)",
            "This worker is running STALE code. Exiting.",
            "  Remedy:   recreate the container from an allowed release, or deploy this image's commit to this host")


def load(path: str, parse: Callable[[bytes], Any]) -> Tuple[Any, str]:
    """What parse makes of a file, and "" - or None, and what is wrong: missing, unreadable or malformed."""
    try:
        if os.path.lexists(path) and not os.path.isfile(path):
            return None, "unreadable"  # opening a pipe or a device could hang
        with open(path, "rb") as file:
            return parse(file.read(MAX_FILE_BYTES + 1)), ""
    except FileNotFoundError:
        return None, "missing"
    except OSError:
        return None, "unreadable"
    except (ValueError, RecursionError):
        return None, "malformed"


def parse_image(data: bytes) -> Tuple[str, str]:
    """The release and the revision in an image file of one key per line; anything else is a ValueError."""
    # NUL bytes are dropped because no shell's "read" can see them, and both guards must judge alike.
    lines = _bytes_as_text(data).replace("\0", "").split("\n")
    if lines[-1] == "":
        lines.pop()
    _require(3 <= len(lines) <= MAX_LINES and lines[0] == "{" and lines[-1] == "}", "frame")
    found = {}
    for number, line in enumerate(lines[1:-1], start=3):
        end = '"' if number == len(lines) else '",'
        _require(len(line) <= MAX_LINE_BYTES and line.startswith('  "') and line.endswith(end), "line")
        key, colon, value = line[3:-len(end)].partition('": "')
        _require(bool(colon) and key.isascii() and key.isalpha() and key not in found, "key")
        _require(bool(value) and not value.strip(PLAIN), "value")
        found[key] = value
    _require(all(key in found for key in IMAGE_KEYS) and found["schema"] == "1", "keys")
    _require(_belong_together(found["release"], found["revision"]), "release")
    return found["release"], found["revision"]


def parse_record(data: bytes) -> Sequence[str]:
    """The allowed releases of a host record, each "<release>:<sha>"; anything malformed is a ValueError."""
    _require(len(data) <= MAX_FILE_BYTES, "size")
    text = data.decode("utf-8")
    record = _as_deployed(text) or _parsed(text)
    _require(_field(record, "schema", int) == 1 and 1 <= _field(record, "generation", int) <= MAX_GENERATION, "schema")
    _require(_is_fleet(_field(record, "fleet", str)), "fleet")
    target = _pair(_field(record, "target", dict))
    allowed = [_pair(entry) for entry in _field(record, "allowed", list)]
    _require(target in allowed and len(set(allowed)) == len(allowed) <= MAX_ALLOWED, "allowed")
    phase = _field(record, "phase", str)
    _require(phase == "rolling" or (phase == "settled" and allowed == [target]), "phase")
    return allowed


def _as_deployed(text: str) -> Any:
    """The record in a text that is to the byte what a deployment writes; None for any other, which may be right too.

    What can be written back the same way needs no parser, and importing json would double the guard's time.
    """
    strings = text.split('"')[1::2]
    number = text.partition('"generation": ')[2].partition(",")[0]
    if len(strings) < 16 or "\\" in text or not number.isdigit() or len(number) > 16:
        return None
    entries = [_release(*pair) for pair in zip(strings[2:-11:4], strings[4:-11:4])]
    record = {
        "allowed": entries, "fleet": strings[-10], "generation": int(number), "phase": strings[-7], "schema": 1,
        "target": _release(strings[-3], strings[-1])}
    return record if _written(record) == text else None


def _release(release: str, sha: str) -> Mapping[str, str]:
    return {"releaseId": release, "sha": sha}


def _written(value: Any, indent: str = "\n") -> str:
    """A value as json.dumps writes it with sort_keys and indent 2, for a record's plain strings and numbers."""
    inner = indent + "  "
    if type(value) is dict:
        items = [inner + '"' + key + '": ' + _written(value[key], inner) for key in sorted(value)]
        return "{" + ",".join(items) + indent + "}" + ("\n" if indent == "\n" else "")
    if type(value) is list:
        return "[" + ",".join([inner + _written(entry, inner) for entry in value]) + indent + "]"
    return '"' + value + '"' if type(value) is str else str(value)


def _parsed(text: str) -> Any:
    import json  # noqa: PLC0415

    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: Sequence[Tuple[str, Any]]) -> Mapping[str, Any]:
    _require(len(dict(pairs)) == len(pairs), "a key twice")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _pair(entry: Any) -> str:
    release, sha = _field(entry, "releaseId", str), _field(entry, "sha", str)
    _require(_belong_together(release, sha), "release")
    return str(release + ":" + sha)


def _field(holder: Any, name: str, kind: type) -> Any:
    value = holder.get(name) if type(holder) is dict else None
    _require(type(value) is kind, name)
    return value


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip(HEX)


def _belong_together(release: str, sha: str) -> bool:
    return _is_hex(sha, 40) and release[:13] == sha[:12] + "." and _is_hex(release[13:], 12)


def _is_fleet(text: str) -> bool:
    letters = HEX[10:] + "ghijklmnopqrstuvwxyz"
    return 2 <= len(text) <= 32 and text[0] in letters and text[-1] != "-" and not text.strip(letters + HEX[:10] + "-")


def shown(value: str) -> str:
    """At most SHOWN_BYTES of a value nobody vouches for; what could forge a log line becomes one question mark."""
    text = ""
    for character in value[:SHOWN_BYTES]:
        if character in PLAIN:
            text += character
        elif not text.endswith("?"):
            text += "?"
    return text + ("..." if len(value) > SHOWN_BYTES else "")


def say(descriptor: int, *lines: str) -> None:
    """Write lines, each after "[version] "; a closed log must not change the verdict."""
    try:  # noqa: SIM105 - "contextlib" costs too much
        os.write(descriptor, "".join("[version] " + line + "\n" for line in lines).encode("ascii", "replace"))
    except OSError:
        pass


def _bytes_as_text(data: bytes) -> str:
    """One character per byte, so that no byte can be lost or cause an error."""
    return data.decode("latin-1")


def main(arguments: Sequence[bytes]) -> int:
    """Run the guard as a program; returns only when the command was not started."""
    options, command, fault = _parse(arguments)
    if "--help" in options:
        os.write(1, USAGE.encode("ascii"))
        return 0
    if not fault and "--health" in options:
        return int(_beside("supervisor_health").ask(initial_environment()))
    if fault or not (command or "--check" in options):
        os.write(2, ("version_guard: " + (fault or "no command after --") + "\n" + USAGE).encode("ascii"))
        return EXIT_USAGE
    environment = initial_environment()
    texts = {_bytes_as_text(name): _bytes_as_text(environment[name]) for name in environment}
    words = [_bytes_as_text(word) for word in command]
    _guard(texts, words, options.get("--image-file", IMAGE_FILE), options.get("--record"))
    if "--check" in options:
        return 0
    if "--supervise" in options:
        return int(_beside("version_supervisor").supervise(
            command, environment, options.get("--image-file", IMAGE_FILE), options.get("--record") or find_record()))
    return become(command, environment)


def _beside(name: str) -> Any:
    """A module that lies beside this file: -I takes the script's own directory out of the search path."""
    sys.modules.setdefault("version_guard", sys.modules[__name__])
    sys.dont_write_bytecode = True
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    try:
        return __import__(name)
    except ImportError as error:
        say(2, "FATAL: The supervisor can't be loaded!",
            "  Expected: its files beside the guard, and a Python with its standard library",
            "  Found:    " + shown(str(error)),
            "  Remedy:   deploy to this host again; use guard: exec for an image with less than that")
        raise SystemExit(EXIT_REFUSED) from None


def _parse(arguments: Sequence[bytes]) -> Tuple[Mapping[str, str], Sequence[bytes], str]:
    """The guard's own options up to the first --, the command behind it, and what is wrong with them or ""."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0] != b"--":
        option = _bytes_as_text(rest.pop(0))
        if option in FLAGS:
            options[option] = ""
        elif option in ("--record", "--image-file") and rest:
            options[option] = os.fsdecode(rest.pop(0))
        else:
            return options, [], "unknown option, or option without its value: " + shown(option)
    return options, rest[1:], ""


def initial_environment() -> dict[bytes, bytes]:
    """The environment the process was given: Python itself may have added LC_CTYPE to os.environ (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    return {entry.partition(b"=")[0]: entry.partition(b"=")[2] for entry in entries if b"=" in entry}


def become(command: Sequence[bytes], environment: Mapping[bytes, bytes]) -> int:
    """Replace this process by the command; returns 126 or 127, as a shell would, where that is impossible."""
    import _signal  # type: ignore[import-not-found]  # noqa: PLC0415 - "signal" costs an enum

    for ignored_by_python in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(ignored_by_python, _signal.SIG_DFL)
    name, status, reason = command[0], EXIT_NOT_FOUND, "not found"
    paths = environment.get(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(b":")
    candidates = [name] if b"/" in name else [os.path.join(path, name) for path in paths]
    for candidate in candidates if name and not name.startswith(b"-") else []:
        try:
            os.execve(candidate, list(command), environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            status, reason = EXIT_NOT_EXECUTABLE, str(error.strerror)
    os.write(2, ("version_guard: " + shown(_bytes_as_text(name)) + ": " + reason + "\n").encode("ascii", "replace"))
    return status


if __name__ == "__main__":
    sys.exit(main([os.fsencode(argument) for argument in sys.argv[1:]]))
