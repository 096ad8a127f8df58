"""The mesh of devices, and a per-device function spread over it.

The mesh axis `replica` holds networks of independent seeds, which never communicate; the axis
`data` splits the batch of each network. A spec says how a global array lies on the two axes. If
there are several replicas, an array whose spec begins with `replica` has a leading axis of
replicas, which the per-device function does not see.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax.keys import Config, nearest_divisor
from resnet_jax.tasks import TASKS

REPLICA, DATA = "replica", "data"
WHOLE = PartitionSpec()  # the same on every device
EACH = PartitionSpec(REPLICA)  # one for each replica: states, metrics
ROWS = PartitionSpec(None, DATA)  # (k, b, ...): the rows of k batches that all replicas share
EACH_ROWS = PartitionSpec(REPLICA, None, DATA)  # (r, k, b, ...): the rows of each replica's batches


def mesh(replicas: int = 1, devices: int | None = None) -> Mesh:
    """Return all devices of all processes, in `replicas` equal rows.

    `devices` takes this process's first devices instead, as many as it says.
    Raises: ValueError if the replicas cannot share the devices evenly.
    """
    members = jax.devices() if devices is None else jax.local_devices()[:devices]
    if len(members) % replicas:
        near = nearest_divisor(len(members), replicas)
        raise ValueError(
            f"replicas={replicas} do not share {len(members)} devices evenly; nearest that do: "
            f"{near}. A CPU is {replicas} devices with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={replicas}"
        )
    shape, names = (replicas, len(members) // replicas), (REPLICA, DATA)
    # Auto, because with JAX's default, explicit axes, flax's modules would have to name shardings.
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * 2, devices=members)


def axis(mesh: Mesh) -> str | None:
    """Return the axis to sum over, or None if a batch is on one device and needs no collective."""
    return DATA if mesh.shape[DATA] > 1 else None


def check(config: Config, mesh: Mesh) -> None:
    """Refuse a batch, or groups of batch norm, that the mesh's devices cannot share evenly.

    Raises: ValueError with the nearest numbers that work.
    """
    if config.parallel == "pmap" and jax.process_count() > 1:
        raise ValueError("parallel=pmap runs in one process; use parallel=shard_map")
    batch, devices = config.batch_size, mesh.shape[DATA]
    if batch % devices:
        lower = batch - batch % devices
        near = " and ".join(str(b) for b in (lower, lower + devices) if b)
        raise ValueError(
            f"batch_size={batch} is not divisible by the {devices} devices that share it; "
            f"nearest {near}"
        )
    if batch // devices % config.accumulate:
        near = nearest_divisor(batch // devices, config.accumulate)
        raise ValueError(
            f"accumulate={config.accumulate} does not divide the {batch // devices} examples of "
            f"each of {devices} devices; nearest {near}"
        )
    unit = TASKS[config.task].unit(config)
    if batch // devices // config.accumulate % unit:
        raise ValueError(
            f"batch_size={batch} on {devices} devices with accumulate={config.accumulate} gives "
            f"parts of {batch // devices // config.accumulate} examples, which must be a multiple "
            f"of {unit} here; use --config.batch_size={devices * config.accumulate * unit} or a "
            "multiple"
        )
    batch //= config.accumulate
    share, group = batch // devices, group_size(config)
    if group > 0 and share % group and group % share:
        sizes = [g for g in range(1, batch + 1) if batch % g == 0 and not (share % g and g % share)]
        near = min(sizes, key=lambda g: abs(g - group))
        raise ValueError(
            f"norm.group_size={group} neither divides the {share} examples of each of {devices} "
            f"devices nor is a multiple of them; nearest {near}"
        )


def group_size(config: Config) -> int:
    """Return norm.group_size, or 0 for a network whose norm sees each example by itself."""
    return config.norm.group_size if config.norm.kind == "batch" else 0


def spread(
    function: Callable,
    mesh: Mesh,
    in_specs: Sequence[PartitionSpec],
    out_specs: PartitionSpec | tuple[PartitionSpec, ...] = EACH,
) -> Callable:
    """Return the per-device `function` as a function of global arrays, by `jax.shard_map`.

    Every argument and every result has a spec. Devices communicate only if the function itself sums
    or averages over `data`.
    """
    several = mesh.shape[REPLICA] > 1
    alone = isinstance(out_specs, PartitionSpec)
    outs = (out_specs,) if isinstance(out_specs, PartitionSpec) else out_specs

    def on_device(*arguments):
        results = function(
            *(
                jax.tree.map(lambda a: a[0], a) if several and _each(spec) else a
                for a, spec in zip(arguments, in_specs, strict=True)
            )
        )
        results = (results,) if alone else results
        results = tuple(
            jax.tree.map(lambda a: a[None], r) if several and _each(spec) else r
            for r, spec in zip(results, outs, strict=True)
        )
        return results[0] if alone else results

    local = lambda specs: tuple(_present(mesh, spec) for spec in specs)
    # check_vma=False, because our own gradients would have to say over which axes results vary.
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=local(in_specs),
        out_specs=local(outs)[0] if alone else local(outs),
        check_vma=False,
    )


def spread_by_pmap(
    function: Callable,
    mesh: Mesh,
    in_specs: Sequence[PartitionSpec],
    out_specs: PartitionSpec | tuple[PartitionSpec, ...] = EACH,
) -> Callable:
    """Do the same as `spread` for one replica in one process, by `jax.pmap`.

    JAX maintains pmap since 0.8 and no longer develops it. The per-device function is the same: the
    rows of an argument get an axis of devices, which pmap maps over, and every result is the same
    on all devices.
    Raises: ValueError for several replicas or processes.
    """
    if mesh.shape[REPLICA] > 1 or jax.process_count() > 1:
        raise ValueError("parallel=pmap runs one replica in one process; use parallel=shard_map")
    rows = [DATA in spec for spec in in_specs]
    mapped = jax.pmap(
        function,
        axis_name=DATA,
        in_axes=tuple(1 if spread else None for spread in rows),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )
    split = lambda a: a.reshape(a.shape[0], mesh.shape[DATA], -1, *a.shape[2:])
    return lambda *arguments: mapped(
        *(jax.tree.map(split, a) if s else a for a, s in zip(arguments, rows, strict=True))
    )


# What the key `parallel` chooses.
SPREAD = {"shard_map": spread, "pmap": spread_by_pmap}


def sharding(mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    """Return the sharding of arrays with this spec."""
    return NamedSharding(mesh, _present(mesh, spec))


def like(mesh: Mesh, spec: PartitionSpec, tree: Any) -> Any:
    """Return the shapes and types of a tree's arrays, with their places on the mesh."""
    place = sharding(mesh, spec)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree)


def place(mesh: Mesh, spec: PartitionSpec, tree: Any) -> Any:
    """Put NumPy arrays on the mesh. Every process has them whole and puts its devices' shares."""
    placement = sharding(mesh, spec)
    put = lambda a: jax.make_array_from_callback(a.shape, placement, lambda index: a[index])
    return jax.tree.map(lambda a: put(np.asarray(a)), tree)


def place_rows(
    mesh: Mesh, spec: PartitionSpec, rows: dict[int, np.ndarray], parts: dict[int, Any], batch: int
) -> Any:
    """Put batches of `batch` rows on the mesh, of which each process has its own rows alone.

    `parts` holds for each replica a tree of arrays (k, b, ...) with the rows of `rows`, see
    `own_rows`. With ROWS all replicas read the same data, so pass replica 0's.
    """
    placement, each = sharding(mesh, spec), _each(spec) and mesh.shape[REPLICA] > 1

    def put(*arrays):
        by_replica = dict(zip(parts, arrays, strict=True))

        def share(index):
            replica = (index[0].start or 0) if each else 0
            start, stop, _ = index[each + 1].indices(batch)
            first = np.searchsorted(rows[replica], start)
            share_of_rows = by_replica[replica][:, first : first + stop - start]
            return share_of_rows[None] if each else share_of_rows

        shape = (arrays[0].shape[0], batch, *arrays[0].shape[2:])
        shape = (mesh.shape[REPLICA], *shape) if each else shape
        return jax.make_array_from_callback(shape, placement, share)

    return jax.tree.map(put, *parts.values())


def own_rows(mesh: Mesh, spec: PartitionSpec, batch: int) -> dict[int, np.ndarray]:
    """Return for each replica the rows of its batches that lie on this process's devices, rising.

    With ROWS all replicas read the same data, and the rows are those of replica 0.
    """
    owned: dict[int, set[int]] = {}
    share = batch // mesh.shape[DATA]
    for (replica, column), device in np.ndenumerate(mesh.devices):
        if device.process_index == jax.process_index():
            rows = range(column * share, (column + 1) * share)
            owned.setdefault(replica if _each(spec) else 0, set()).update(rows)
    return {replica: np.array(sorted(rows)) for replica, rows in owned.items()}


def _each(spec: PartitionSpec) -> bool:
    return len(spec) > 0 and spec[0] == REPLICA


def _present(mesh: Mesh, spec: PartitionSpec) -> PartitionSpec:
    """Return the spec of the arrays themselves: a single replica has no axis of its own."""
    return PartitionSpec(*spec[1:]) if _each(spec) and mesh.shape[REPLICA] == 1 else spec
