"""Commands for tests: run one in this process, as its command line would."""

import contextlib
import importlib
import io
from typing import NamedTuple


class Done(NamedTuple):
    """What a command left: its status, and the text that it wrote to stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The only line of a command that was refused, without the word "error"."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self
        return self.err.removeprefix("error: ").strip()


def command(name: str, *words: object) -> Done:
    """Run `python -m resnet_jax.NAME WORDS` in this process."""
    main = importlib.import_module(f"resnet_jax.{name}").main
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as left:
            status = left.code
    return Done(status, out.getvalue(), err.getvalue())
