"""What fits into a given memory: sizes in words, and the search for the largest that fits."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from configs import cifar10, digits, reconstruction
from resnet_jax import describe, memory
from tests.recipes import recipe


def test_sizes_are_read_in_thousands_and_in_powers_of_two():
    assert memory.parse("16GB") == 16 * 10**9
    assert memory.parse("80GiB") == 80 * 2**30
    assert memory.parse("1.5 gb") == 1_500_000_000
    for wrong in ("16", "GB", "-1GB", "16XB", "0GB", "1e3GB", ""):
        with pytest.raises(ValueError, match=f"--memory={wrong} is no size"):
            memory.parse(wrong)


@pytest.mark.parametrize("limit", [0, 99, 100, 1234, 10**9])
@pytest.mark.parametrize("first", [1, 32, 4096])
def test_the_largest_that_fits_is_found_in_few_tries_and_was_tried(limit, first):
    """The bytes are a line with a small bend, like a compiler's."""
    bytes_of = lambda size: 90 + 10 * size + size // 7
    tried = []

    def used(size):
        tried.append(size)
        return bytes_of(size)

    largest: Any = memory.largest(range(1, 10**6), first, used, limit)
    fitting = [size for size in range(1, 2000) if bytes_of(size) <= limit] if limit < 2000 else []
    assert len(tried) <= 25
    if limit == 10**9:
        assert largest in tried and largest == 10**6 - 1
    elif not fitting:
        assert largest is None
    else:
        assert largest in tried and largest <= fitting[-1] <= 1.01 * largest + 1


def test_a_step_takes_the_tasks_inputs_and_targets():
    state, batch = memory.step_inputs(digits.get_config("depth=8"))
    assert batch.input.shape == (50, 8, 8, 1) and batch.input.dtype == jnp.float32
    assert batch.target.shape == (50,) and batch.target.dtype == jnp.int32
    assert batch.row.shape == batch.mask.shape == (50,)
    assert state.step.shape == () and state.params["head"]["dense"]["kernel"].shape == (64, 10)
    config = reconstruction.get_config("depth=3")
    for size in (50, 64):  # 64 is also the number of outputs
        state, batch = memory.step_inputs(memory.changed(config, batch_size=size))
        assert batch.target.shape == (size, 25) and batch.target.dtype == jnp.float32


def test_a_step_of_any_task_keeps_bytes_for_its_gradient():
    config = reconstruction.get_config("depth=3")
    two, four = (memory.changed(config, batch_size=size) for size in (2, 4))
    kept = memory.activation_bytes(four)
    assert 1.5 * memory.activation_bytes(two) < kept < 2.5 * memory.activation_bytes(two)
    parameters = sum(a.size for a in jax.tree.leaves(memory.step_inputs(four)[0].params))
    peak = memory.peak_bytes(four)
    assert peak is not None and peak > 2 * 4 * parameters  # the parameters and the momentum


def test_a_changed_copy_keeps_the_keys_and_leaves_the_config_as_it_was():
    config = digits.get_config("depth=14")
    deeper = memory.changed(config, model__depth=20, remat="sqrt")
    assert (deeper.model.depth, deeper.remat, config.model.depth) == (20, "sqrt", 14)
    assert deeper.is_locked
    with pytest.raises((KeyError, AttributeError), match="patch"):
        memory.changed(config, model__patch=4)


def test_the_largest_batch_is_a_multiple_of_the_norms_groups(monkeypatch):
    monkeypatch.setattr(memory, "peak_bytes", lambda config: 100 * config.batch_size)
    config = cifar10.get_config("depth=20")
    assert memory.largest_batch(config, 100_000, 12_800) == 960  # groups of 64
    config.norm.group_size = -1  # a device's share, whatever it is
    assert memory.largest_batch(config, 100_000, 12_800) == 1000
    assert memory.largest_batch(cifar10.get_config("depth=20,norm=layer"), 99_900, 12_800) == 999


def test_describe_says_what_fits_and_recommends_the_fastest_policy_that_does(
    tmp_path, capsys, monkeypatch
):
    """A step takes 1000 bytes for each layer and example, and less with every policy."""
    per = {"none": 1000, "block": 100, "sqrt": 10}
    bytes_of = lambda c: per[c.remat] * c.model.depth * c.batch_size
    monkeypatch.setattr(memory, "peak_bytes", bytes_of)
    monkeypatch.setattr(memory, "activation_bytes", lambda config: 1)
    monkeypatch.setattr(memory, "TRIED", 40)  # depths go on in equal steps from here
    file, config = tmp_path / "described.json", "--config=configs/digits.py:depth=14"
    changes = ("--config.batch_size=64", "--config.norm.group_size=0")
    describe.main([config, *changes, f"--json={file}", "--memory=200KB"])
    described, printed = json.loads(file.read_text("utf-8")), capsys.readouterr().out
    assert described["memory_bytes"] == 200_000
    assert "recommended" in printed and "largest batch" in printed and "largest depth" in printed
    assert described["recommended"] == "block"
    for name, used in described["policies"].items():
        batch, depth = used["largest_batch"], used["largest_depth"]
        assert 0.98 * 200_000 <= per[name] * 14 * batch <= 200_000
        assert (depth is None) == (per[name] * 64 * 8 > 200_000)
        if depth is not None:
            assert depth % 6 == 2 and per[name] * 64 * depth <= 200_000
            assert per[name] * 64 * (depth + 6) > 0.99 * 200_000
    peaks = {name: 14 * 64 * number for name, number in per.items()}
    assert memory.recommended(digits.get_config("depth=14"), peaks, 100) is None


@pytest.mark.parametrize("policy", memory.POLICIES)
def test_the_loop_of_a_recurrent_layer_has_the_configs_policy(policy):
    assert memory.policy_of(recipe("adding", "", remat=policy)) == policy
