"""Signals, for real: to this process while it trains, and to small processes of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from resnet_jax.run import interrupt
from resnet_jax.run.interrupt import Interrupt


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """In the background, under nohup and cron some are ignored, also in all child processes."""
    usual = {number: signal.SIG_DFL for number in interrupt.SIGNALS}
    usual[signal.SIGINT] = signal.default_int_handler
    earlier = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


def start(program, *words, **options):
    """A Python program in its own process, which has printed "ready"."""
    process = subprocess.Popen(
        [sys.executable, *words, *(("-c", program) if program else ())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert next_line(process) == "ready\n", process.communicate()
    return process


def next_line(process):
    """The next line that the process writes to stdout."""
    assert process.stdout
    return process.stdout.readline()


def finish(process, *signals):
    """Send signals; return the status and what the process wrote to stderr."""
    for number in signals:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


BEFORE = """
import hashlib
from resnet_jax.run.interrupt import Interrupt
with Interrupt("runs/x") as interrupt:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes inside of C, like a compiler
"""

AFTER = """
import time
from resnet_jax.run.interrupt import Interrupt
with Interrupt("runs/x") as interrupt:
    interrupt.begin()
    print("ready", flush=True)
    while interrupt.received is None:
        time.sleep(0.01)
    print(interrupt.received.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_ends_the_process_at_once_if_it_has_nothing_to_save(number):
    status, said = finish(start(BEFORE), number)
    assert status == 128 + number
    assert said == f"runs/x: received {number.name} before it had anything to save\n"


def test_the_first_signal_asks_to_save_and_the_second_ends_the_process_at_once():
    process = start(AFTER)
    process.send_signal(signal.SIGINT)
    assert next_line(process) == "SIGINT\n"
    status, said = finish(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    first, second = said.splitlines()
    assert first.startswith("runs/x: received SIGINT, saves at the end of this chunk and ends; a")
    assert second == "runs/x: received SIGTERM, too, and ends without saving"


def start_ignoring_sigint(*arguments, **options):
    """A child process ignores the signals that its parent process ignores when it starts."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return start(*arguments, **options)
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_a_signal_that_the_parent_process_ignores_stays_ignored():
    process = start_ignoring_sigint(AFTER)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert next_line(process) == "SIGTERM\n"
    status, said = finish(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM and "SIGINT" not in said


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_is_received_and_the_handlers_are_as_before(number):
    before = [signal.getsignal(s) for s in interrupt.SIGNALS]
    with Interrupt("this test") as interrupted:
        assert interrupted.received is None
        interrupted.begin()
        os.kill(os.getpid(), number)
        end = time.monotonic() + 60
        while interrupted.received is None and time.monotonic() < end:
            time.sleep(0.01)
        assert interrupted.received == number
    assert [signal.getsignal(s) for s in interrupt.SIGNALS] == before


def test_in_another_thread_nothing_is_received():
    def enter():
        with Interrupt("a thread") as interrupted, interrupt.keyboard_interrupts():
            received.append(interrupted.received)

    received = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert received == [None]


@pytest.mark.parametrize(
    "argv,started_with,changes",
    [
        (["-m", "--flag"], ["python", "-m", "package.command", "--flag"], True),
        (["-m"], ["python", "-X", "dev", "-mpackage.command"], True),
        (["-m"], ["python", "-m", "package"], True),
        (["-m"], ["python", "-m", "packages.command"], False),
        (["-m", "package"], ["python", "-m", "other", "package"], False),
        (["package.py"], ["python", "package.py"], False),
        (["/path/package/command.py"], ["python", "-m", "package.command"], False),
        ([""], ["python"], False),
        (["-c"], ["python", "-c", "import package"], False),
        ([], ["python"], False),
    ],
)
def test_only_the_import_of_a_packages_own_command_ends_silently(
    monkeypatch, argv, started_with, changes
):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", started_with)
    interrupt.end_silently("package")
    assert (signal.getsignal(signal.SIGINT) == signal.SIG_DFL) == changes
    with interrupt.keyboard_interrupts():
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert (signal.getsignal(signal.SIGINT) == signal.SIG_DFL) == changes


def test_other_handlers_are_not_replaced(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "package.command"])
    for handler in (signal.SIG_IGN, lambda *_: None):
        signal.signal(signal.SIGINT, handler)
        interrupt.end_silently("package")
        with interrupt.keyboard_interrupts():
            assert signal.getsignal(signal.SIGINT) == handler
        assert signal.getsignal(signal.SIGINT) == handler


COMMAND = """
import sys
from resnet_jax.run import interrupt
if "jax" in sys.modules:
    sys.exit("the handler was installed after the import of jax")
print("ready", flush=True)
sys.stdin.readline()  # as if this were a long import
try:
    with interrupt.keyboard_interrupts():
        print("runs", flush=True)
        sys.stdin.readline()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def package(tmp_path):
    """A folder with a package whose command ends silently while it is imported."""
    (tmp_path / "package").mkdir()
    init = "from resnet_jax.run import interrupt\n\ninterrupt.end_silently(__name__)\n"
    (tmp_path / "package" / "__init__.py").write_text(init)
    (tmp_path / "package" / "command.py").write_text(COMMAND)
    return {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": os.getcwd()}}


def test_a_command_that_is_imported_ends_silently_and_one_that_runs_handles_the_signal(package):
    words = ("-m", "package.command")
    assert finish(start("", *words, **package), signal.SIGINT) == (-signal.SIGINT, "")
    running = start("", *words, **package)
    assert running.stdin
    running.stdin.write("\n")
    running.stdin.flush()
    assert next_line(running) == "runs\n"
    assert finish(running, signal.SIGINT) == (130, "")
    ignoring = start_ignoring_sigint("", *words, **package)
    ignoring.send_signal(signal.SIGINT)
    assert ignoring.communicate("\n\n", timeout=60) == ("runs\n", "")
    assert ignoring.returncode == 0


def test_whoever_imports_the_package_gets_a_keyboard_interrupt(package):
    program = "import package, time; print('ready', flush=True); time.sleep(60)"
    status, said = finish(start(program, **package), signal.SIGINT)
    assert status == -signal.SIGINT and said.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("module", ["numpy", "jax", "orbax.checkpoint"])
def test_training_ends_silently_while_python_imports(module):
    """-X importtime writes a line about each module when the module has been imported."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "resnet_jax.train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines = iter(process.stderr.readline, "")
    assert any(re.search(rf"\| +{re.escape(module)}$", line) for line in lines)
    status, said = finish(process, signal.SIGINT)
    assert status in (-signal.SIGINT, 130)
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
