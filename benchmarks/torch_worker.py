"""PyTorch in a process of its own, so that its memory and its libraries stay out of JAX's process.

    python -m benchmarks.torch_worker       `Worker` starts it; JSON lines in, JSON lines out

It does nothing until a request comes, so that it does not run while JAX compiles and autotunes.
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
    """PyTorch's process, which is started again if it has ended.

    The process imports torch at once.
    """

    def __init__(self):
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.torch_worker"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request to the process and return its answer.

        Raises: RuntimeError with the error of the process, or with its status if it ended.
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
        """End the process at once."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # the process may not have read a request
            self.process.communicate()


def serve() -> None:
    """Answer requests until there are no more."""
    # Libraries print to stdout, which is for answers: send their output to stderr.
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
                training.seconds(3)  # the first steps compile
                reply |= {"ready_s": time.perf_counter() - began, "device": training.device_name()}
            elif training is None:
                reply["error"] = "no network was made yet"
            else:
                reply["seconds"], reply["loss"] = training.seconds(request["steps"])
        except Exception as error:
            training = None
            _forget()
            message = (str(error).strip() or "no message").splitlines()[0]
            reply = {"error": f"{type(error).__name__}: {message}"}
        print(json.dumps(reply), file=answers, flush=True)


def _forget() -> None:
    """Give the memory of the previous network back to the card."""
    import torch

    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    serve()
