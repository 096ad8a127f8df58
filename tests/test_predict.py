"""A prediction is the network's softmax on the file's image, with the classes' names if known."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax import predict, trained
from resnet_jax.data import normalise, sources
from resnet_jax.data.normalise import Normalisation
from tests.in_process import command
from tests.recipes import changed


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write the first 18 test digits, a file for each."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(sources.load("digits", "").test.images[:18]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return sorted(map(str, folder.iterdir()))


def shown(out):
    """Return {file: [(probability, class), ...]} of what was printed."""
    classes = {}
    for line in out.splitlines():
        row = re.fullmatch(r" +([\d.]+)%  (.+)", line)
        if row:
            classes[file].append((float(row[1]) / 100, row[2]))
        else:
            file = line.removesuffix(":")
            classes[file] = []
    return classes


def test_the_five_likeliest_classes_of_every_file_are_printed(imported, files):
    workdir, *_ = imported
    printed = shown(command("predict", f"--workdir={workdir}", *files).out)
    run, images = trained.load(workdir), sources.load("digits", "").test.images[:18]
    normalisation = Normalisation.from_json(trained.statistics(run), run.config.data.shape)
    image = normalise.apply(normalisation, jnp.asarray(images))
    logits = jax.jit(run.net.apply)(run.variables, image)
    assert list(printed) == files
    for row, best in zip(np.asarray(jax.nn.log_softmax(logits)), printed.values(), strict=True):
        assert [name for _, name in best] == [str(i) for i in np.argsort(-row)[:5]]
        np.testing.assert_allclose([p for p, _ in best], np.exp(np.sort(row)[::-1][:5]), atol=1e-4)
    # The number of files and the place of the flags change nothing.
    fewer = command("predict", files[0], f"--workdir={workdir}", *files[1:17], "--replica=0").out
    assert list(shown(fewer)) == files[:17]
    for file, best in shown(fewer).items():
        np.testing.assert_allclose([p for p, _ in best], [p for p, _ in printed[file]], atol=1e-4)


def test_classes_have_the_names_of_the_run_or_of_its_data_set_or_none(imported, monkeypatch):
    run = trained.load(imported[0])
    saved = trained.statistics(run)
    monkeypatch.setattr(trained, "statistics", lambda run: saved)
    monkeypatch.setattr(sources, "class_names", lambda *_: tuple("abcdefghij"))
    assert predict._class_names(run, required=False)[1] == "b"
    monkeypatch.setattr(sources, "class_names", lambda *_: ("cat", "dog"))
    assert predict._class_names(run, required=False)[1] == "1"
    named = saved | {"classes": list("ABCDEFGHIJ")}
    with monkeypatch.context() as patched:
        patched.setattr(trained, "statistics", lambda run: named)
        assert predict._class_names(run, required=True)[1] == "B"
    monkeypatch.undo()
    monkeypatch.setattr(trained, "statistics", lambda run: saved)
    run = dataclasses.replace(
        run, config=changed(run.config, {"data.name": "cifar10", "data.dir": "/not/there"})
    )
    assert predict._class_names(run, required=False)[1] == "1"
    with pytest.raises(ValueError, match="/not/there"):
        predict._class_names(run, required=True)


def test_every_file_is_checked_before_anything_is_compiled(imported, files, monkeypatch):
    monkeypatch.setattr(trained, "program", lambda *_: pytest.fail("compiled"))
    done = command("predict", f"--workdir={imported[0]}", *files[:2], "/none.png")
    assert done.refusal == "image /none.png does not exist"


def test_a_file_with_an_exif_orientation_is_told(imported, files, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    with Image.open(files[0]) as image:
        image.save(turned, exif=exif)
    lines = command("predict", f"--workdir={imported[0]}", turned, files[0]).out.splitlines()
    assert lines[0].startswith(f"{turned}: (not turned upright") and f"{files[0]}:" in lines


def test_it_needs_a_checkpoint(imported, files, tmp_path):
    shutil.copy(imported[0] / "config.json", tmp_path)
    assert "has no checkpoint" in command("predict", f"--workdir={tmp_path}", *files).refusal
