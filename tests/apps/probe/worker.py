# SPDX-License-Identifier: MIT
"""The tests' worker: registers, beats, and misbehaves as behaviour.json says.

``crash_after`` seconds: exits with status 3; ``hang``: never becomes healthy; ``ignore_sigterm``: stays until it is
killed, or only those of a service do; ``lie``: registers this SHA; ``mute``: never registers; ``obey``: says
that it is fenced when the fleet's record doesn't allow it, or only those of a service do; ``say``: a log line;
``jobs``: outcome → how many a second, or only of a service, served as metrics; ``once``: a restart mends it. ``on``
a host, ``of`` a service: it misbehaves only there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

BEHAVIOUR = json.loads(Path("/app/behaviour.json").read_text())
IMAGE = json.loads(Path("/etc/driftguard/image.json").read_text())
ENV = os.environ
if any(BEHAVIOUR.get(key, ENV[name]) != ENV[name] for key, name in (("on", "WORKER_HOST"), ("of", "WORKER_TYPE"))):
    BEHAVIOUR = {}


class Redis:
    """Just enough of the protocol."""

    def __init__(self) -> None:
        url = urlsplit(ENV["REDIS_URL"])
        self._socket = socket.create_connection((url.hostname or "", url.port or 6379), timeout=5)
        if url.scheme == "rediss":
            context = ssl.create_default_context(cafile=ENV["REDIS_CA_FILE"])
            self._socket = context.wrap_socket(self._socket, server_hostname=url.hostname)
        self._answers = self._socket.makefile("rb")
        if "REDIS_PASSWORD_FILE" in ENV:
            user = [url.username] if url.username else []
            self.ask("AUTH", *user, Path(ENV["REDIS_PASSWORD_FILE"]).read_text())
        if url.path.strip("/") not in ("", "0"):
            self.ask("SELECT", url.path.strip("/"))

    def ask(self, *words: object) -> object:
        """Send a command, return its answer."""
        parts = [str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self._answer()

    def _answer(self) -> object:
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            sys.exit(f"redis: {rest.decode()}")
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind == b"$":
            return self._answers.read(int(rest) + 2)[:-2]
        return rest


def container_id() -> str:
    """Id of this container, from the files that the engine mounts."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, found, rest = line.partition("/containers/")
        if found and len(rest) > 64:
            return rest[:64]
    return ""


def iso(redis: Redis) -> str:
    """Redis's own time."""
    answer: Any = redis.ask("TIME")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(answer[0])))


def state(redis: Redis) -> str:
    """What it says of itself."""
    obeys = BEHAVIOUR.get("obey") in (True, ENV["WORKER_TYPE"])
    record: Any = redis.ask("GET", f"{ENV['WORKER_FLEET']}:release") if obeys else b""
    return "fenced" if record and IMAGE["release"].encode() not in record else "running"


def serve_jobs() -> None:
    """Metrics of jobs that nobody does."""
    jobs, started = BEHAVIOUR.get("jobs", {}), time.monotonic()
    jobs = jobs.get(ENV["WORKER_TYPE"], jobs)
    if not all(isinstance(rate, int) for rate in jobs.values()) or not jobs:
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            passed = int(time.monotonic() - started)
            lines = ["# TYPE driftguard_worker_jobs_total counter"] + [
                f'driftguard_worker_jobs_total{{queue="q",outcome="{outcome}"}} {float(rate * passed)}'
                for outcome, rate in jobs.items()]
            body = "".join(f"{line}\n" for line in lines).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    Thread(target=HTTPServer(("", 8081), Handler).serve_forever, daemon=True).start()


def begin() -> None:
    """What it does of signals, and of a start that fails."""
    if BEHAVIOUR.get("ignore_sigterm") in (True, ENV["WORKER_TYPE"]):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(BEHAVIOUR.get("say", "probe at work"), flush=True)
    if BEHAVIOUR.get("crash_after") == 0:
        print("boom", flush=True)
        sys.exit(3)


def main() -> None:
    """Work until told to stop."""
    started = time.monotonic()
    serve_jobs()
    begin()
    redis = Redis()
    me = container_id()
    key = f"{ENV['WORKER_FLEET']}:worker:{ENV['WORKER_TYPE']}:{me[:12]}:version"
    member = f"{ENV['WORKER_TYPE']}:{me[:12]}"
    born = iso(redis)
    if BEHAVIOUR.get("once") and redis.ask("INCR", f"{ENV['WORKER_FLEET']}:starts:{me}") != b"1":
        BEHAVIOUR.pop("crash_after", None)
    if not BEHAVIOUR.get("hang"):
        Path("/tmp/ready").touch()
    try:
        while True:
            if not BEHAVIOUR.get("mute"):
                now = iso(redis)
                redis.ask("HSET", key, "gitSha", BEHAVIOUR.get("lie", ENV["GIT_SHA"]), "buildDate", ENV["BUILD_DATE"],
                          "startedAt", born, "pid", os.getpid(), "host", ENV["WORKER_HOST"],
                          "service", ENV["WORKER_TYPE"], "containerId", me,
                          "releaseId", IMAGE["release"], "state", state(redis), "heartbeatAt", now)
                redis.ask("EXPIRE", key, 15)
                redis.ask("ZADD", f"{ENV['WORKER_FLEET']}:workers", time.time(), member)
            for _ in range(20):
                if time.monotonic() - started > BEHAVIOUR.get("crash_after", float("inf")):
                    print("boom", flush=True)
                    sys.exit(3)
                time.sleep(0.25)
    finally:
        redis.ask("DEL", key)
        redis.ask("ZREM", f"{ENV['WORKER_FLEET']}:workers", member)


main()
