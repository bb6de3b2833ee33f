import os
import signal
import subprocess
import sys
import time

import pytest
from grading.process import Limits, run

QUICK = Limits(seconds=1.5)
FINE = Limits(seconds=30)


def test_the_work_is_done_elsewhere_and_the_answer_comes_back():
    answer = run(lambda: {"state": "right", "pid": os.getpid(), "folder": os.listdir()}, FINE)
    assert answer["state"] == "right" and answer["pid"] != os.getpid() and answer["folder"] == []


def test_the_folder_it_works_in_is_gone_afterwards_and_home_is_not_the_teachers():
    def work():
        open("left.txt", "w").close()
        return {"folder": os.getcwd(), "home": os.path.expanduser("~")}

    answer = run(work, FINE)
    assert not os.path.exists(answer["folder"]) and answer["home"] == answer["folder"]


def _loop():
    while True:
        pass


def _close_the_pipe_and_sleep():
    os.closerange(3, 200)
    time.sleep(60)


@pytest.mark.parametrize("work", [_loop, lambda: time.sleep(60), _close_the_pipe_and_sleep])
def test_what_does_not_end_is_stopped(work):
    start = time.monotonic()
    assert run(work, QUICK)["state"] == "stopped"
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: os._exit(0), "without a verdict"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: sys.exit("bye"), "SystemExit: bye"),
        (lambda: bytearray(10**10), "MemoryError"),
        (lambda: open("big", "wb").write(bytes(2 * 10**7)), "OSError"),
        (lambda: {"text": "x" * 10**6}, "too long"),
        (lambda: {"a": object()}, "not JSON serializable"),
    ],
)
def test_what_goes_wrong_is_said(work, words):
    answer = run(work, FINE)
    assert answer["state"] == "crashed" and words in answer["message"]


def test_output_goes_nowhere(capfd):
    def work():
        print("x" * 10**6)
        os.write(1, b"y" * 10**6)
        subprocess.run(["echo", "z"], check=True)
        return {"state": "right"}

    assert run(work, FINE)["state"] == "right"
    assert capfd.readouterr() == ("", "")


def test_bytes_written_to_every_file_are_no_answer():
    def work():
        for file in range(3, 100):
            try:
                os.write(file, b'{"state": "right"}\n')
            except OSError:
                pass
        return {"state": "wrong"}

    assert run(work, FINE)["state"] == "crashed"


def test_processes_that_it_started_end_with_it(tmp_path):
    def work():
        child = subprocess.Popen(["sleep", "100"])
        return {"child": child.pid}

    child = run(work, FINE)["child"]
    end = time.monotonic() + 10
    while _runs(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid):
    """True while a process lives; one that nobody has waited for yet (a zombie) does not."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_state_does_not_leak_from_one_to_the_next():
    os.environ.pop("GRADED", None)
    assert run(lambda: os.environ.update(GRADED="1") or {}, FINE) == {}
    assert "GRADED" not in os.environ
