"""Fixtures that write small tfds folders with the tfds library."""

import io

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def encode():
    """(pixels, form) -> an image file in memory."""

    def encode(pixels, form):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, form)
        file.seek(0)
        return file

    return encode


@pytest.fixture(scope="session")
def prepare(encode):
    """Write (images, labels) of every split in array_record form, in the given order.

    An image is an array of pixels or the bytes of a file; labels are 0, 1 or 2.
    """

    def prepare(folder, name, splits, form, shape):
        import tensorflow_datasets as tfds

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=shape, encoding_format=form),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(*data) for split, data in splits.items()}

            def _generate_examples(self, images, labels):
                for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                    file = io.BytesIO(image) if isinstance(image, bytes) else encode(image, form)
                    yield i, {"image": file, "label": int(label)}

        Builder.name = name
        Builder(data_dir=folder, file_format="array_record").download_and_prepare()

    return prepare
