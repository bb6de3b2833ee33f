"""One piece of work in a process of its own, with limits on time, memory and files.

The process is forked from this one, so that everything imported is there at once. It works in an empty temporary
folder, its output is discarded, and it is killed with all its group when it has answered or when its time is over.
That guards against accidents: loops for ever, memory, output, os._exit. It is no sandbox: the code may read and write
whatever the teacher may. Memory is limited on Linux only; a fork bomb is not stopped.
"""

from __future__ import annotations

import json
import math
import os
import resource
import secrets
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ANSWER_LIMIT = 100_000  # bytes


@dataclass(frozen=True)
class Limits:
    """Wall-clock seconds, MB of memory beyond what the grader itself holds, MB of a file that is written."""

    seconds: float = 60
    memory_mb: int = 4000
    file_mb: int = 10


def run(work: Callable[[], dict], limits: Limits) -> dict:
    """What `work` returns (it must fit JSON), or {"state": "stopped" or "crashed", "message": why}."""
    reader, writer = os.pipe()
    token = secrets.token_hex(16).encode()  # so that bytes written to every open file are not taken for an answer
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as folder:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _child(work, writer, token, folder, limits)
        os.close(writer)
        received = _listen(reader, limits.seconds)
        os.close(reader)
        status = _end(pid)
    return _answer(received, token, status, limits)


# ------------------------------------------------------------------ the child


def _child(work: Callable[[], dict], writer: int, token: bytes, folder: str, limits: Limits) -> None:
    """Never returns: what follows in the caller is the parent's."""
    try:
        os.setsid()
        _confine(writer, folder, limits)
        try:
            answer = json.dumps(work())
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the student's code may raise anything
            what = f"Your code stopped with {type(error).__name__}: {error}"
            answer = json.dumps({"state": "crashed", "message": what[:500]})
        os.write(writer, token + answer.encode()[: ANSWER_LIMIT - 100] + b"\n")
    finally:
        os._exit(0)


def _confine(writer: int, folder: str, limits: Limits) -> None:
    os.chdir(folder)
    os.environ["HOME"] = folder
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(3, writer)
    os.closerange(writer + 1, 4096)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - they live as long as it
    seconds, size = math.ceil(limits.seconds), limits.file_mb * 10**6
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + 1, seconds + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(seconds + 5)  # ends it if this process's parent is killed first
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        space = pages * resource.getpagesize() + limits.memory_mb * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a pool of threads does not survive the fork


# ------------------------------------------------------------------ the parent


def _listen(reader: int, seconds: float) -> bytes:
    """What comes through the pipe until a line is complete, the other end is closed or the time is over."""
    received, end = b"", time.monotonic() + seconds
    while len(received) < ANSWER_LIMIT and not received.endswith(b"\n"):
        ready, _, _ = select.select([reader], [], [], max(0, end - time.monotonic()))
        chunk = os.read(reader, ANSWER_LIMIT) if ready else b""
        if not chunk:
            break
        received += chunk
    return received


def _end(pid: int) -> int | None:
    """Kills the process and all its group; its wait status if it had ended by itself, else None."""
    done, status = _await(pid, seconds=0.5)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing of the group is left, or the process has not yet made it
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return status if done else None


def _await(pid: int, seconds: float) -> tuple[int, int]:
    """What os.waitpid says after at most so many seconds; the first is 0 while the process runs."""
    end = time.monotonic() + seconds
    done, status = os.waitpid(pid, os.WNOHANG)
    while not done and time.monotonic() < end:
        time.sleep(0.005)
        done, status = os.waitpid(pid, os.WNOHANG)
    return done, status


def _answer(received: bytes, token: bytes, status: int | None, limits: Limits) -> dict:
    if received.startswith(token) and received.endswith(b"\n"):
        try:
            return json.loads(received[len(token) :])
        except ValueError:
            return {"state": "crashed", "message": "The diagnosis was too long to be sent."}
    too_slow = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM))
    if too_slow and not received:
        return {"state": "stopped", "message": f"Not done after {limits.seconds:g} seconds: a loop without an end?"}
    if status is not None and os.WIFSIGNALED(status):
        return {"state": "crashed", "message": f"The process was ended by {signal.Signals(os.WTERMSIG(status)).name}."}
    return {"state": "crashed", "message": "The process ended without a verdict: os._exit, or output in its place?"}
