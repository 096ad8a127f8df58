"""Rows to samples, ordered by seed."""

from experiments import rows


def row(model, depth, seed, error, **more):
    own = {"model": model, "depth": depth, "seed": seed, "train_error": error}
    return own | {"chance_error": 0.9} | more


ROWS = [row("b", 20, 1, 0.4), row("b", 20, 0, 0.3), row("a", 8, 1, 0.2), row("a", 8, 0, 0.1)]


def test_a_sample_is_ordered_by_seed():
    assert rows.sample(ROWS, "train_error", model="b") == [0.3, 0.4]
    assert rows.sample(ROWS, "train_error") == [0.1, 0.2, 0.3, 0.4]
    assert rows.where(ROWS, depth=8, seed=1) == [ROWS[2]]
    assert rows.sample(ROWS, "train_error", model="c") == []


def test_all_depths_have_the_seeds_that_every_depth_has():
    assert rows.by_depth(ROWS, "train_error") == {8: [0.1, 0.2], 20: [0.3, 0.4]}
    more = [*ROWS, row("b", 20, 2, 0.5), row("c", 56, 1, 0.9), row("c", 56, 2, 0.8)]
    assert rows.by_depth(more, "train_error") == {8: [0.2], 20: [0.4], 56: [0.9]}
    assert rows.by_depth(more, "train_error", model="c") == {56: [0.9, 0.8]}
    assert rows.by_depth(more, "train_error", model="d") == {}


def test_a_relabelled_row_is_a_copy():
    assert rows.relabelled(ROWS[2:], model="x", depth=20) == [
        ROWS[2] | {"model": "x", "depth": 20},
        ROWS[3] | {"model": "x", "depth": 20},
    ]
    assert ROWS[2]["model"] == "a"


def test_what_is_at_chance_has_a_note_and_keeps_the_one_that_it_has():
    noted = rows.noted(
        [row("a", 8, 0, 0.87), row("a", 8, 1, 0.89), row("a", 8, 2, 0.9, note="diverged")]
    )
    assert [row.get("note") for row in noted] == [None, "did not train", "diverged"]


def test_a_network_has_learned_nothing_if_its_mean_is_at_chance():
    assert rows.learned_nothing(ROWS) == ""
    failed = [*ROWS, row("c", 56, 0, 0.88), row("c", 56, 1, 0.9)]
    assert rows.learned_nothing(failed).startswith("c did not train (89.0%)")
    assert rows.learned_nothing([*failed, row("c", 56, 2, 0.5)]) == "", "one seed has learned"
    other_chance = row("d", 8, 0, 0.5, chance_error=0.5)
    assert rows.learned_nothing([*ROWS, other_chance]).startswith("d did not train")


def test_other_seeds_keep_the_values_and_move_the_seeds():
    own = [
        {"model": model, "arm": "a", "depth": 8, "seed": seed, "error": 10 * place + seed}
        for place, model in enumerate(("a-8", "b-8"))
        for seed in (0, 1, 2)
    ]
    moved = rows.with_other_seeds(own, arm="b")
    assert {row["arm"] for row in moved} == {"b"}
    for model, errors in (("a-8", [0, 1, 2]), ("b-8", [10, 11, 12])):
        values = rows.sample(moved, "error", model=model)
        assert sorted(values) == errors
        assert all(a != b for a, b in zip(values, errors, strict=True))
