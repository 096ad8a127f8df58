"""Output that nobody reads, and characters that a locale lacks, end no command."""

import os
import pty
import subprocess
import sys

import pytest

COUNT = """
from resnet_jax.run.output import keep_running
keep_running()
for i in range(100_000):
    print(i)
import sys
print("done", file=sys.stderr)
"""


def test_a_process_goes_on_if_the_reader_of_its_pipe_has_left():
    words = (sys.executable, "-c", COUNT)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as counts:
        assert counts.stdout and counts.stderr and counts.stdout.readline() == b"0\n"
        counts.stdout.close()
        assert counts.stderr.read() == b"done\n"
        assert counts.wait(60) == 0


def test_a_full_disk_is_still_an_error():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            (sys.executable, "-c", COUNT),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0 and "No space left on device" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_name_is_shown_somehow(encoding):
    begin = "from resnet_jax.run.output import keep_running\nkeep_running()\n"
    say = begin + r"print('caf\udce9 \xb1 \u2713')"
    strict = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run((sys.executable, "-c", say), env=strict, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("caf\\udce9 ")


TERMINAL = """
import os, signal, sys, time
from resnet_jax.run.output import keep_running
keep_running()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
while os.isatty(1):
    time.sleep(0.01)
print("nobody reads this", flush=True)
print("nor this", file=sys.stderr, flush=True)
os._exit(7)
"""


def test_a_process_goes_on_if_its_terminal_is_closed():
    ours, its = pty.openpty()
    process = subprocess.Popen((sys.executable, "-c", TERMINAL), stdout=its, stderr=its, stdin=its)
    os.close(its)
    assert os.read(ours, 5) == b"ready"
    os.close(ours)
    assert process.wait(60) == 7


def test_output_that_is_not_buffered_stays_so():
    code = COUNT.replace("100_000", "3") + "import os; os._exit(0)"
    done = subprocess.run((sys.executable, "-u", "-c", code), capture_output=True, check=False)
    assert done.stdout == b"0\n1\n2\n"
