"""What layer_responses, lesion and path_lengths measure, on small networks as they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import layer_responses, lesion, lesions_add_up, path_lengths, reorder
from experiments.network import opened
from resnet_jax.reporting import points

# The blocks of ResNet-26: stage1[0..3], stage2_first, stage2[0..2], stage3_first, stage3[0..2].
DELETABLE = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11]
NARROW = {"model.width": "2"}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Give each run a row without training."""
    for module in (layer_responses, lesion, lesions_add_up, path_lengths):
        monkeypatch.setattr(module, "scores", lambda run: [{"seed": run.config.seed}])


@pytest.fixture(scope="module")
def networks():
    """Keep each network that was opened, so that all tests draw it once."""
    return {}


@pytest.fixture
def open_changed(monkeypatch, networks):
    """open_changed(module, change) has a claim measure networks with change(variables)."""

    def install(module, change):
        def changed(run, examples=64, split="train"):
            key = str(run.config), examples, split
            if key not in networks:
                networks[key] = opened(run, examples, split)
            network = networks[key]
            return network._replace(variables=change(network.variables))

        monkeypatch.setattr(module, "opened", changed)

    return install


def twins(module, options, *depths):
    """Return the plain and the residual run of a claim at its first depth, as they start."""
    runs = module.plan(options(*depths, overrides=NARROW))
    return [run._replace(trained=False) for run in runs[:2]]


def silent(stage, layer=None):
    """Return a change that has the last norm of a body give 0: of a layer of a Stack, or of all."""
    index = slice(None) if layer is None else layer

    def change(variables):
        flat, tree = jax.tree.flatten_with_path(variables)
        at = lambda path: [key.key for key in path]
        zero = lambda names: names[:2] == ["params", stage] and "norm2" in names
        leaves = [leaf.at[index].set(0) if zero(at(path)) else leaf for path, leaf in flat]
        return jax.tree.unflatten(tree, leaves)

    return change


def test_the_responses_are_those_of_the_last_norms(options, open_changed):
    _, residual = twins(layer_responses, options, 8, 14)
    open_changed(layer_responses, silent("stage2_first"))
    (row,) = layer_responses.measure(residual)
    first, silenced, last = row["responses"]
    assert silenced == 0 < min(first, last)
    assert row["response"] == pytest.approx(np.mean(row["responses"]))


def test_a_lesion_is_the_network_without_the_block(options, open_changed):
    _, residual = twins(lesion, options, 26)
    open_changed(lesion, lambda variables: variables)
    (row,) = lesion.measure(residual)
    assert len(row["lesion_errors"]) == len(DELETABLE)
    assert len({row["whole_error"], *row["lesion_errors"]}) > 3  # so that equality says something
    assert row["lesion_error"] == pytest.approx(np.mean(row["lesion_errors"]))
    apply = jax.jit(opened(residual, 256, "test").net.apply)
    for block, change in ((0, silent("stage1", 0)), (6, silent("stage2", 1))):
        open_changed(lesion, change)
        network = lesion.opened(residual, 256, "test")
        wrong = apply(network.variables, network.x).argmax(-1) != network.batch.target
        assert row["lesion_errors"][DELETABLE.index(block)] == float(wrong.mean())


def test_the_error_without_all_blocks_that_keep_the_shape_is_that_of_the_blocks_that_change_it(
    options, open_changed, monkeypatch
):
    _, residual = twins(lesions_add_up, options, 26)
    everything = len(DELETABLE)
    monkeypatch.setattr(lesions_add_up, "DELETED", (1, everything))
    open_changed(lesions_add_up, lambda variables: variables)
    (row,) = lesions_add_up.measure(residual)

    def silent_all(variables):
        for stage, index in [("stage1", None), ("stage2", None), ("stage3", None)]:
            variables = silent(stage, index)(variables)
        return variables

    open_changed(lesions_add_up, silent_all)
    network = lesions_add_up.opened(residual, 256, "test")
    output = jax.jit(network.net.apply)(network.variables, network.x)
    without = row[f"without_{everything}"]
    assert without == pytest.approx(float(lesion.error_of(network, output)), abs=1e-6)
    assert row["without_1"] != without


def test_a_lesion_of_a_plain_network_passes_the_input_of_the_block_on(options, open_changed):
    plain, _ = twins(path_lengths, options, 8)  # three blocks, of which the first keeps the shape
    network = opened(plain)
    masks = jnp.array([[1.0, 1, 1], [0, 1, 1], [1, 0, 1]])
    whole, without, first = lesion.errors_of(network, masks)
    shorter = stage_left_out(network)
    assert float(without) == pytest.approx(shorter, abs=1 / 64) and float(whole) != shorter
    assert float(first) == float(whole)  # a block that changes the shape stays


def test_blocks_that_change_places_change_nothing_if_they_are_equal(options, open_changed):
    _, residual = twins(lesion, options, 26)
    open_changed(lesion, lambda variables: variables)
    network = lesion.opened(residual, 256, "test")
    whole, *swapped = reorder.errors_of(network)
    output = jax.jit(network.net.apply)(network.variables, network.x)
    assert whole == float(lesion.error_of(network, output))
    assert len(swapped) == 16 and len(set(swapped)) > 2
    first = lambda path, leaf: (
        jnp.broadcast_to(leaf[:1], leaf.shape) if "layers" in [key.key for key in path] else leaf
    )
    equal = network._replace(variables=jax.tree.map_with_path(first, network.variables))
    assert len(set(reorder.errors_of(equal))) == 1


def stage_left_out(network):
    """Return the error of a plain network whose first stage is the identity, made by kernels.

    The input of the stage has passed a ReLU, so that another ReLU leaves it as it is.
    """
    params = dict(network.variables["params"])
    body = params["stage1"]["layers"]["body"]
    width = body["conv1"]["kernel"].shape[-1]
    dirac = jnp.zeros_like(body["conv1"]["kernel"]).at[:, 1, 1].set(jnp.eye(width))
    unit = (1 + network.config.norm.epsilon) ** 0.5  # undoes the norm of variance 1
    norm = {"scale": jnp.full_like(body["norm1"]["scale"], unit), "bias": body["norm1"]["bias"]}
    same = {"conv1": {"kernel": dirac}, "conv2": {"kernel": dirac}, "norm1": norm, "norm2": norm}
    params["stage1"] = {"layers": {"body": same}}
    output = jax.jit(network.net.apply)({**network.variables, "params": params}, network.x)
    return float((output.argmax(-1) != network.batch.target).mean())


def test_paths_of_a_residual_network_whose_bodies_are_silent_have_length_0(options, open_changed):
    plain, residual = twins(path_lengths, options, 8)
    everything = lambda variables: silent("stage2_first")(silent("stage3_first")(variables))
    open_changed(path_lengths, lambda variables: silent("stage1")(everything(variables)))
    (row,) = path_lengths.measure(residual)
    assert row["blocks"] == 3 and row["effective_length"] == row["relative_length"] == 0
    assert row["shares"] == [1, 0, 0, 0] and row["decades_a_block"] is None

    open_changed(path_lengths, silent("stage1"))
    (row,) = path_lengths.measure(residual)  # three bodies, of which two carry a gradient
    assert row["shares"][3] == 0 < row["shares"][2] and sum(row["shares"]) == pytest.approx(1)

    open_changed(path_lengths, lambda variables: variables)
    (row,) = path_lengths.measure(plain)
    assert row["shares"] == [0, 0, 0, 1] and row["relative_length"] == 2
    assert row["decades_a_block"] is None


def test_the_slope_is_that_of_decades_by_length():
    assert path_lengths.slope(10.0 ** -np.arange(5)) == pytest.approx(-1)
    assert path_lengths.slope(np.array([1.0, 0.0, 0.01, 0.001])) == pytest.approx(-1)
    assert path_lengths.slope(np.array([0.0, 0.0, 3.0])) is None


def test_the_figures_leave_out_runs_that_diverged():
    row = {"model": "resnet-8", "arm": "resnet", "depth": 8, "seed": 0, "note": "diverged"}
    full = {"responses": [0.5, 0.4], "response": 0.45, "lesion_errors": [0.1, 0.2]}
    full |= {"blocks": 2, "shares": [0.5, 0.3, 0.2]}
    drawings = (layer_responses.by_layer, lesion.by_block, path_lengths.shares)
    for draw in (*drawings, layer_responses.response):
        assert draw([row, row | full | {"model": "resnet-20", "depth": 20}]).axes[0].lines
    assert not points.by_block([row], "responses", "deviation").axes[0].lines
