"""An evaluation is the whole test split, each example once, as training measures it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import evaluate, trained
from resnet_jax.data import normalise, order, sources
from resnet_jax.data.normalise import Normalisation
from resnet_jax.tasks import TASKS, classification
from resnet_jax.tasks.task import Batch
from tests.in_process import command


def measured(run, split="test"):
    """Return what `evaluate` measures of an opened run."""
    dataset = TASKS[run.config.task].build(run.config)
    return evaluate.evaluate(run, dataset, trained.statistics(run), split)


@pytest.mark.parametrize(("split", "examples"), [("test", 297), ("train", 1500)])
def test_it_counts_what_the_networks_logits_say(imported, split, examples):
    run = trained.load(imported[0])
    means, images = measured(run, split), getattr(sources.load("digits", ""), split)
    normalisation = Normalisation.from_json(trained.statistics(run), run.config.data.shape)
    image = normalise.apply(normalisation, jnp.asarray(images.images))
    ranks = np.argsort(-np.asarray(jax.jit(run.net.apply)(run.variables, image)), axis=1)
    right = ranks == images.labels[:, None]
    assert means["examples"] == examples and means["split"] == split
    assert means["protocol"] == "center"
    assert means["error"] == pytest.approx(1 - right[:, 0].mean())
    assert means["error_top5"] == pytest.approx(1 - right[:, :5].any(1).mean())


def test_a_loss_that_is_not_finite_is_said(imported):
    run = trained.load(imported[0])
    run.state.params["head"]["dense"]["bias"] = jnp.full((10,), jnp.nan)
    with pytest.raises(FloatingPointError, match="the test loss is nan"):
        measured(run)


def test_top_5_counts_masked_examples_and_few_classes_always_hit():
    logits = np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32)
    labels = np.argsort(-logits, axis=1)[np.arange(12), np.arange(12) % 7].astype(np.int32)
    rows = np.arange(12, dtype=np.int32)
    batch = Batch(None, labels, rows, rows < 11)
    evaluation, measure = jax.jit(classification.evaluation), classification.measure
    sums = evaluation(logits, batch)
    assert sums["error_top5"] == 2 and sums["error"] == 9 and sums["examples"] == 11
    of_four = evaluation(logits[:, :4], batch.replace(target=labels % 4))
    assert of_four["error_top5"] == 0
    assert jax.eval_shape(measure, logits, batch).keys() == {"loss", "error", "examples"}


def test_the_masks_of_an_evaluation_cover_every_example_once():
    index, mask = order.eval_indices(297, 50)
    assert sorted(index[mask].tolist()) == list(range(297))


def test_the_command_writes_what_it_prints_and_names_the_step(imported, tmp_path):
    workdir, file = imported[0], tmp_path / "measured.json"
    done = command("evaluate", f"--workdir={workdir}", f"--json={file}")
    written = json.loads(file.read_text("utf-8"))
    facts = {"step", "split", "examples", "protocol"}
    assert written.keys() == facts | {"loss", "error", "error_top5"} and written["step"] == 0
    assert done.status == 0 and f"test error {written['error']:.2%}" in done.out
    assert done.out.endswith("over 297 examples (center) at step 0\n")
    assert sorted(p.name for p in workdir.iterdir()) == [
        "checkpoints",
        "config.json",
        "saved.jsonl",
    ]
