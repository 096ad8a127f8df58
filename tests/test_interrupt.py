"""Signals, for real: to commands in processes of their own, in each phase of a run."""

import os
import re
import signal
import subprocess
import threading
import time

import pytest

from benchmarks import soak
from resnet_jax.interrupt import Interrupt
from resnet_jax.training import metrics

# Chunks that take a while, so that a second signal comes before the first one's is over.
SLOW = "model.width=48 steps=1800 chunk_steps=90 eval_every=90 checkpoint_every=900"
slow = soak.Scenario(tuple(f"--config.{change}" for change in SLOW.split()))


def saved(workdir):
    return [line["step"] for line in metrics.read(workdir / "saved.jsonl")]


def wait_for(start, happens):
    """Until `happens` is true, or in words, until they are said."""
    said = isinstance(happens, str)
    assert start.wait((lambda: happens in start.said()) if said else happens), start.said()


def wait_for_records(start, workdir):
    """Until it trains for sure; before, there is nothing to save."""
    wait_for(start, lambda: metrics.read(workdir / "metrics.jsonl"))


def test_asked_while_it_trains_a_run_saves_at_the_chunks_end_and_goes_on_from_there(tmp_path):
    start = soak.Start(slow, tmp_path / "run")
    wait_for_records(start, tmp_path / "run")
    second = subprocess.run(start.words, capture_output=True, text=True, check=False)
    assert second.returncode == 2 and second.stderr.startswith("error: ")
    assert f"run is in use by process {start.processes[0].pid} on" in second.stderr
    start.processes[0].send_signal(signal.SIGINT)
    assert start.finish() == [130], start.said()
    found = re.search(r"saved at step (\d+) after SIGINT; the same command goes on", start.said())
    assert found and saved(tmp_path / "run")[-1] == int(found[1]) and int(found[1]) % 90 == 0

    again = soak.Start(slow, tmp_path / "run")
    step = max(r["step"] for r in metrics.read(tmp_path / "run" / "metrics.jsonl"))
    wait_for(again, f"resumes at step {found[1]}")
    wait_for(again, lambda: step < metrics.read(tmp_path / "run" / "metrics.jsonl")[-1]["step"])
    again.processes[0].send_signal(signal.SIGTERM)
    wait_for(again, "SIGTERM, saves at the end of this chunk")
    again.processes[0].send_signal(signal.SIGTERM)
    assert again.finish() == [143]
    assert "SIGTERM again, ends without saving" in again.said()
    assert "after SIGTERM" not in again.said() and "Traceback" not in again.said()


def test_asked_before_it_trains_a_run_ends_at_once(tmp_path):
    start = soak.Start(slow, tmp_path / "run")
    wait_for(start, "devices:")
    time.sleep(1)  # it compiles
    start.processes[0].send_signal(signal.SIGTERM)
    assert start.finish() == [143]
    assert "SIGTERM before there was anything to save" in start.said()
    assert "ready after" not in start.said() and not saved(tmp_path / "run")


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_what_listens_hears_a_signal_and_leaves_the_handlers_as_they_were(asked):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with Interrupt("this test") as interrupt:
        assert interrupt.received is None
        interrupt.begin()
        os.kill(os.getpid(), asked)
        end = time.monotonic() + 10
        while interrupt.received is None and time.monotonic() < end:
            time.sleep(0.01)
        assert interrupt.received == asked
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


def test_beside_the_main_thread_nothing_listens():
    def other():
        with Interrupt("a thread") as interrupt:
            found.append(interrupt.received)

    found = []
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [None]
