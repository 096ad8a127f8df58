"""What fits into a given memory: sizes in words, and the search for the largest that fits."""

import json
from typing import Any

import pytest

from configs import digits
from resnet_jax import describe, memory


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
    """Bytes that are a line with a small bend, as a compiler's are."""
    tried = []

    def used(size):
        tried.append(size)
        return 90 + 10 * size + size // 7

    found: Any = memory.largest(range(1, 10**6), first, used, limit)
    fitting = [size for size in range(1, 2000) if used(size) <= limit] if limit < 2000 else []
    tried = tried[: len(tried) - 1999] if limit < 2000 else tried
    assert len(tried) <= 25
    if limit == 10**9:
        assert found in tried and found == 10**6 - 1
    elif not fitting:
        assert found is None
    else:
        assert found in tried and found <= fitting[-1] <= 1.01 * found + 1


def test_describe_says_what_fits_and_recommends_the_fastest_policy_that_does(
    tmp_path, capsys, monkeypatch
):
    """Where a step's bytes are 1000 a layer and example, and less with every policy."""
    per = {"none": 1000, "block": 100, "sqrt": 10}
    bytes_of = lambda c: per[c.remat] * c.model.depth * c.batch_size
    monkeypatch.setattr(memory, "peak_bytes", bytes_of)
    config = digits.get_config("depth=14")
    config.update_from_flattened_dict({"model.width": 4, "batch_size": 64, "norm.group_size": 0})
    file = tmp_path / "described.json"
    describe.main(config, str(file), "200KB")
    found, said = json.loads(file.read_text()), capsys.readouterr().out
    assert found["memory_bytes"] == 200_000
    assert "recommended" in said and "largest batch" in said and "largest depth" in said
    assert found["recommended"] == "block"
    for name, used in found["policies"].items():
        batch, depth = used["largest_batch"], used["largest_depth"]
        assert 0.98 * 200_000 <= per[name] * 14 * batch <= 200_000
        assert (depth is None) == (per[name] * 64 * 8 > 200_000)
        if depth is not None:
            assert depth % 6 == 2 and per[name] * 64 * depth <= 200_000
            assert per[name] * 64 * (depth + 6) > 0.99 * 200_000
    assert describe.describe(config, 100)["recommended"] is None
