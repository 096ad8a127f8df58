"""safetensors files of float32 tensors. Nothing is ever unpickled: a pickle can run any program."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

# How a file of torch.save begins: a zip since 2020, before that a pickle.
TORCH = (b"PK\x03\x04", b"\x80")
# What turns one into a safetensors, where torch is; weights_only keeps it from running anything.
CONVERT = (
    """python -c "import sys, torch; from safetensors.torch import save_file; """
    """w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); """
    """w = w.get('state_dict', w); save_file({k.removeprefix('module.'): """
    """v.contiguous().clone() for k, v in w.items()}, sys.argv[2])" """
)
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": jnp.bfloat16}
# PyTorch's count of batches: neither read nor needed.
IGNORED = "num_batches_tracked"


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as float32; `num_batches_tracked` is left out.

    Raises: ValueError for a file of another kind (with the line that converts it), one that is
        damaged, and tensors that are not floating-point or not finite; OSError if there is none.
    """
    data = path.read_bytes()
    if data.startswith(TORCH):
        target = path.with_suffix(".safetensors")
        target = path.with_suffix(".new.safetensors") if target == path else target
        raise ValueError(
            f"{path} is a pickle of PyTorch, which is not opened here; where torch is installed, "
            f"turn it into a safetensors with: {CONVERT}{shlex.join((str(path), str(target)))}"
        )
    try:
        entries = safetensors.deserialize(data)
    except Exception as error:  # one kind, which the package has under several names
        raise ValueError(f"{path} is no safetensors file, or damaged: {error}") from error
    return {
        name: _array(path, name, entry)
        for name, entry in entries
        if name.rpartition(".")[2] != IGNORED
    }


def _array(path: Path, name: str, entry) -> np.ndarray:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind not in FLOATS:
        raise ValueError(f"{path}: tensor {name} is {kind}, not one of {', '.join(FLOATS)}")
    raw = np.frombuffer(entry["data"], FLOATS[kind], math.prod(shape))
    array = raw.astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: tensor {name} holds values that are not finite in float32")
    return array


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors by name, whole or not at all."""
    # "pt" is what the readers of PyTorch's libraries ask for.
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"format": "pt"})
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
