"""Compilation: the one place where pure functions become programs."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

# On the CPU convolutions and matrix products are library calls, and LLVM compiles the rest. LLVM's
# level 1 compiles in half of the time of level 3 (the default), and the steps of ResNet-20 and 56
# take as long as with level 3. Level 0 is for programs that run once.
STEP, ONCE = 1, 0

# YNN, XLA's newer library, runs a convolution on one core, and Eigen runs it on all cores. With YNN
# for reductions alone a step takes 0.6 to 0.7 of the time on two cores.
LIBRARY = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

# A GPU's atomics add in any order, and autotuning may pick another kernel in the next process. This
# flag turns both off. Other backends give the same bits without a flag.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}


def program(
    function: Callable,
    *arguments: Any,
    donate: tuple[int, ...] = (),
    level: int = STEP,
    deterministic: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Callable:
    """Compile `function` for arguments of these shapes and types (arrays or ShapeDtypeStructs).

    `donate` are the positions of arguments whose memory the results may take. With `deterministic`
    the same arguments give the same bits, in this process and in the next. `options` are further
    XLA options, by the names of XLA's flags; docs/flags.md has those that may pay. A flag that
    XLA_FLAGS sets is left as it is there.
    """
    lowered = jax.jit(function, donate_argnums=donate).lower(*arguments)
    backend = jax.default_backend()
    chosen: dict[str, Any] = {}
    if backend == "cpu":
        chosen |= {"xla_backend_optimization_level": str(level), **LIBRARY}
    if backend == "gpu" and deterministic:
        chosen |= DETERMINISTIC
    given = os.environ.get("XLA_FLAGS", "")
    ours = {name: value for name, value in chosen.items() if f"--{name}=" not in given}
    return lowered.compile({**ours, **(options or {})} or None)
