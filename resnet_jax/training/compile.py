"""Where pure functions become programs: the one place that compiles for training."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

# On the CPU convolutions and matrix products are library calls; LLVM makes the rest. Its level 1
# takes half of level 3's time (the default) and the steps of ResNet-20 and 56 take as long as
# before; level 0 is for what runs once.
STEP, ONCE = 1, 0

# YNN, XLA's newer library, runs a convolution on one core and Eigen runs it on all: with YNN for
# reductions alone a step takes 0.6 to 0.7 of the time on two cores.
LIBRARY = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

# A GPU's atomics add in any order, and what is fastest today may be another kernel tomorrow: this
# does without both. Other backends repeat themselves.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}


def program(
    function: Callable,
    *arguments: Any,
    donate: tuple[int, ...] = (),
    level: int = STEP,
    deterministic: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Callable:
    """`function` compiled for arguments of these shapes and types (arrays or ShapeDtypeStructs).

    `donate`: the positions of arguments whose memory the results may take. `deterministic`: the
    same arguments give the same bits, in this process and in the next. `options`: others of XLA,
    by the names of its flags; docs/flags.md has those that may pay. A flag of ours that is in
    XLA_FLAGS holds as it is given there.
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
