"""A prediction is the network's softmax on the file's image, in words where there are any."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax import predict, trained
from resnet_jax.data import normalise, sources


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The first 18 test digits, a file each."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(sources.load("digits", "").test.images[:18]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return sorted(map(str, folder.iterdir()))


def shown(out):
    """{file: [(probability, class), ...]} of what was printed."""
    found = {}
    for line in out.splitlines():
        row = re.fullmatch(r" +([\d.]+)%  (.+)", line)
        if row:
            found[file].append((float(row[1]) / 100, row[2]))
        else:
            file = line.removesuffix(":")
            found[file] = []
    return found


@pytest.mark.parametrize("count", [1, 18])
def test_the_five_likeliest_classes_of_every_file_are_printed(imported, files, capsys, count):
    workdir, *_ = imported
    predict.main(workdir, None, files[:count])
    found, run = shown(capsys.readouterr().out), trained.load(workdir)
    images = jnp.asarray(sources.load("digits", "").test.images[:count])
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    logits = jax.jit(run.net.apply)(variables, normalise.apply(trained.normalisation(run), images))
    assert list(found) == files[:count]
    for row, best in zip(np.asarray(jax.nn.log_softmax(logits)), found.values(), strict=True):
        assert [name for _, name in best] == [str(i) for i in np.argsort(-row)[:5]]
        np.testing.assert_allclose([p for p, _ in best], np.exp(np.sort(row)[::-1][:5]), atol=1e-4)


def test_classes_have_the_data_sets_names_where_it_is_at_hand(imported, monkeypatch):
    config = trained.load(imported[0]).config
    monkeypatch.setattr(sources, "class_names", lambda *_: tuple("abcdefghij"))
    assert predict._names(config, required=False)[1] == "b"
    monkeypatch.setattr(sources, "class_names", lambda *_: ("cat", "dog"))
    assert predict._names(config, required=False)[1] == "1"
    monkeypatch.undo()
    config.data.name, config.data.dir = "cifar10", "/not/there"
    assert predict._names(config, required=False)[1] == "1"
    with pytest.raises(ValueError, match="/not/there"):
        predict._names(config, required=True)


def test_every_file_is_checked_before_anything_is_compiled(imported, files, monkeypatch, capsys):
    monkeypatch.setattr(predict, "program", lambda *_: pytest.fail("compiled"))
    with pytest.raises(SystemExit) as end:
        predict.main(imported[0], None, [*files[:2], "/none.png"])
    said = capsys.readouterr()
    assert end.value.code == 2 and not said.out
    assert said.err == "error: image /none.png is not there\n"


def test_it_needs_a_checkpoint(imported, files, tmp_path, capsys):
    shutil.copy(imported[0] / "config.json", tmp_path)
    with pytest.raises(SystemExit) as end:
        predict.main(tmp_path, None, files)
    assert end.value.code == 2 and "has no checkpoint" in capsys.readouterr().err
