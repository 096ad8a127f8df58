"""Reading and writing safetensors files of float32 tensors.

Nothing is ever unpickled, because a pickle can run any program.
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

# The first bytes of a file of torch.save: a zip archive since 2020, a pickle before.
TORCH = (b"PK\x03\x04", b"\x80")
# The command that turns such a file into a safetensors file if torch is installed. weights_only
# keeps torch from running anything; training scripts save their arguments, a Namespace, beside the
# weights (and paths, and numbers of NumPy). Averages (EMA) are taken first, as timm does. What
# wrappers (DDP, torch.compile, Lightning) put before all names is taken off; `adapt` does the rest.
CONVERT = (
    """python -c "import argparse, pathlib, re, sys, numpy, torch; """
    """from safetensors.torch import save_file as save; f = numpy.float64(0); """
    """torch.serialization.add_safe_globals([argparse.Namespace, pathlib.PosixPath, """
    """f.__reduce__()[0], numpy.dtype, type(f.dtype)]); """
    """w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); """
    """k = next((k for k in ('state_dict_ema', 'model_ema', 'state_dict', 'model_state_dict', """
    """'module', 'teacher', """
    """'model', 'net', 'network', 'weights') if k in w), ''); print(k or 'the file'); """
    """t = {n: v.contiguous().clone() for n, v in (w[k] if k else w).items() """
    """if torch.is_tensor(v) and v.is_floating_point()}; """
    """t or sys.exit('no tensors; the file has: ' + str(list(w))); """
    """p = re.match('((module|_orig_mod|model)[.])*', next(iter(t))).group(); """
    """p = p * all(n.startswith(p) for n in t); """
    """save({n[len(p):]: v for n, v in t.items()}, sys.argv[2])" """
)
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": jnp.bfloat16}
# Counts that PyTorch and its helpers keep beside the weights, by the last part of their names.
IGNORED = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file by name, as float32, without counts (IGNORED).

    Raises: ValueError for a file that is missing, of another kind (with the line that converts it)
        or damaged, and for tensors that are not floating-point or not finite; OSError if the file
        cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a safetensors file")
    data = path.read_bytes()
    # A safetensors file begins with the length of its header, which may begin with the same byte.
    if data.startswith(TORCH) and data[8:9] != b"{":
        if path.suffix == ".npz":
            raise ValueError(f"{path} is an archive of NumPy; give a safetensors file")
        target = path.with_suffix(".safetensors")
        target = path.with_suffix(".new.safetensors") if target == path else target
        raise ValueError(
            f"{path} is a pickle of PyTorch, which is not opened here; if torch is installed, turn "
            f"it into a safetensors file with: {CONVERT}{shlex.join((str(path), str(target)))}"
        )
    try:
        entries = safetensors.deserialize(data)
    except Exception as error:  # the package raises one kind of error under several names
        raise ValueError(f"{path} is no safetensors file, or it is damaged: {error}") from error
    return {
        name: _array(path, name, entry)
        for name, entry in entries
        if name.rpartition(".")[2] not in IGNORED
    }


def _array(path: Path, name: str, entry) -> np.ndarray:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind not in FLOATS:
        raise ValueError(f"{path}: tensor {name} is {kind}, not one of {', '.join(FLOATS)}")
    raw = np.frombuffer(entry["data"], FLOATS[kind], math.prod(shape))
    array = raw.astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: tensor {name} has values that are not finite in float32")
    return array


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors by name, whole or not at all."""
    # The readers of PyTorch's libraries ask for the format "pt".
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"format": "pt"})
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
