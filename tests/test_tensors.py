"""Only safetensors files are opened, and any other content is refused in one line."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax import tensors

VALUES = np.array([[1.5, -2.0, 0.25]], np.float32)


def message(path):
    with pytest.raises(ValueError) as error:
        tensors.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_tensors_are_read_back_as_they_were_written_and_no_other_file_is_left(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.write(path, {"w": VALUES.T, "b": np.zeros(0, np.float32)})
    arrays = tensors.read(path)
    np.testing.assert_array_equal(arrays["w"], VALUES.T, strict=True)
    assert arrays["b"].shape == (0,) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_floating_type_is_read_as_float32(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    save_file({"w": VALUES.astype(kind)}, path)
    np.testing.assert_array_equal(tensors.read(path)["w"], VALUES, strict=True)


def test_the_count_of_batches_of_pytorch_is_ignored_and_other_integers_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": VALUES, "bn1.num_batches_tracked": np.array(7)}, path)
    assert list(tensors.read(path)) == ["w"]
    save_file({"w": np.array([1, 2])}, path)
    assert "tensor w is I64, not one of F64, F32, F16, BF16" in message(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "a.safetensors"
    save_file({"w": np.array([1, value], np.float32)}, path)
    assert "tensor w has values that are not finite" in message(path)


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["resnet20.th", "my weights.safetensors"])
def test_a_pickle_is_never_opened_and_the_line_that_converts_it_is_given(tmp_path, zipped, name):
    path, bomb = tmp_path / name, tmp_path / "went_off"
    data = pickle.dumps({"state_dict": Bomb(bomb)})
    if zipped:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", data)
    else:
        path.write_bytes(data)
    said = message(path)
    assert "with: python -c" in said and "weights_only=True" in said
    assert said.endswith(".safetensors") or said.endswith(".safetensors'")
    assert said.rpartition(" ")[2] != str(path)
    assert not bomb.exists()


def test_a_damaged_file_is_one_line(tmp_path):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_file({"w": np.zeros((40, 40), np.float32)}, whole)
    data = whole.read_bytes()
    for cut in (data[: len(data) // 2], data[:20], data[:3], b"", b"<html>" + data):
        path.write_bytes(cut)
        assert "is no safetensors file, or it is damaged" in message(path)


def test_a_safetensors_file_may_begin_with_the_byte_of_a_pickle(tmp_path):
    """Its first byte is that of its header's length, a multiple of 8."""
    file = tmp_path / "a.safetensors"
    for length in range(400):
        tensors.write(file, {"a" * length: np.ones(3, np.float32)})
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[:1] == b"\x80"
    (array,) = tensors.read(file).values()
    np.testing.assert_array_equal(array, np.ones(3))


def test_an_archive_of_numpy_is_no_pickle_of_pytorch(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="a.npz is an archive of NumPy; give a safetensors file"):
        tensors.read(tmp_path / "a.npz")
