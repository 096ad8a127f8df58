"""PyTorch in a process of its own: its memory and its libraries stay out of JAX's.

    python -m benchmarks.torch_worker       what `Worker` starts; JSON lines in, JSON lines out

It does nothing until it is asked, so that nothing of it runs while JAX compiles and chooses.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Worker:
    """Asks the process, and starts another where one has ended. It imports torch at once."""

    def __init__(self):
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.torch_worker"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the process answers.

        Raises: RuntimeError with what went wrong there, its end included.
        """
        if self.process.poll() is not None:
            self.close()
            self.process = self._start()
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"PyTorch's process ended with status {self.process.wait()}")
        reply = json.loads(answer)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # a request that was never read
            self.process.communicate()


def serve() -> None:
    """Answer until there are no more requests."""
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from benchmarks import torch_peer

    training = None
    for line in sys.stdin:
        request = json.loads(line)
        do, reply = request.pop("do"), {}
        try:
            if do == "make":
                training = None
                _forget()
                began = time.perf_counter()
                net = torch_peer.Plain(**request.pop("net"))
                reply["parameters"] = sum(p.numel() for p in net.parameters())
                training = torch_peer.Training(net, **request)
                training.seconds(3)  # compiles, where anything is compiled
                reply |= {"ready_s": time.perf_counter() - began, "device": training.device_name()}
            elif training is None:
                reply["error"] = "nothing is made"
            else:
                reply["seconds"], reply["loss"] = training.seconds(request["steps"])
        except Exception as error:
            training = None
            _forget()
            words = (str(error).strip() or "no words").splitlines()[0]
            reply = {"error": f"{type(error).__name__}: {words}"}
        print(json.dumps(reply), file=answers, flush=True)


def _forget() -> None:
    """Give the memory of what was trained before back to the card."""
    import torch

    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    serve()
