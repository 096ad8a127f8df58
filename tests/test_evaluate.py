"""An evaluation is the whole test split, each example once, as training measures it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import evaluate, trained
from resnet_jax.data import normalise, order, sources
from resnet_jax.training import inputs, metrics


def measured(workdir):
    run = trained.load(workdir)
    return evaluate.evaluate(run, inputs.dataset(run.config), trained.normalisation(run))


def test_it_counts_what_the_networks_logits_say(imported):
    workdir, config, _ = imported
    found, run = measured(workdir), trained.load(workdir)
    digits = sources.load("digits", "")
    assert len(digits.test) % config.batch_size  # the last batch is padded
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    image = normalise.apply(trained.normalisation(run), jnp.asarray(digits.test.images))
    ranks = np.argsort(-np.asarray(jax.jit(run.net.apply)(variables, image)), axis=1)
    right = ranks == digits.test.labels[:, None]
    assert found["examples"] == 297 and found["split"] == "test"
    assert found["protocol"] == "center"
    assert found["error"] == pytest.approx(1 - right[:, 0].mean())
    assert found["error_top5"] == pytest.approx(1 - right[:, :5].any(1).mean())


def test_a_loss_that_is_not_finite_is_said(imported):
    run = trained.load(imported[0])
    run.state.params["head"]["dense"]["bias"] = jnp.full((10,), jnp.nan)
    with pytest.raises(FloatingPointError, match="the test loss is nan"):
        evaluate.evaluate(run, inputs.dataset(run.config), trained.normalisation(run))


def test_top_5_counts_masked_examples_and_few_classes_always_hit():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(12, 7)), jnp.float32)
    labels = jnp.argsort(-logits, axis=1)[jnp.arange(12), jnp.arange(12) % 7].astype(jnp.int32)
    mask = jnp.arange(12) < 11
    sums = metrics.sums_top5(logits, labels, mask)
    assert sums["error_top5"] == 2 and sums["error"] == 9 and sums["examples"] == 11
    assert metrics.sums_top5(logits[:, :4], labels % 4, mask)["error_top5"] == 0
    assert metrics.sums(logits, labels, mask).keys() == {"loss", "error", "examples"}


def test_the_masks_of_an_evaluation_cover_every_example_once():
    index, mask = order.eval_indices(297, 50)
    assert sorted(index[mask].tolist()) == list(range(297))


def test_the_command_writes_what_it_prints(imported, tmp_path, monkeypatch, capsys):
    file = tmp_path / "found.json"
    evaluate.main(imported[0], file, None)
    found = json.loads(file.read_text())
    assert list(found) == ["split", "examples", "loss", "error", "error_top5", "protocol"]
    assert f"test error {found['error']:.2%}" in capsys.readouterr().out
    assert sorted(p.name for p in imported[0].iterdir()) == [
        "checkpoints",
        "config.json",
        "saved.jsonl",
    ]
