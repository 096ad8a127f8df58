"""Tests that any image file gets the network's input size, or an error of one line."""

import struct
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import images, photographs

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (80, 80, 3)).astype(np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_an_image_of_the_networks_size_is_left_as_it_is(tmp_path):
    for size in (8, 80):
        pixels = COLOUR[:size, :size]
        path = save(tmp_path / f"{size}.png", pixels)
        np.testing.assert_array_equal(photographs.read(path, (size, size, 3)), pixels)


def ramp(high, wide):
    """Red rises from left to right and green from top to bottom, so that colour tells position."""
    red, green = np.meshgrid(np.linspace(0, 255, wide), np.linspace(0, 255, high))
    return np.stack([red, green, np.zeros_like(red)], -1).astype(np.uint8)


@pytest.mark.parametrize("high,wide", [(300, 500), (500, 300), (40, 90)])
def test_a_small_network_sees_the_whole_image(tmp_path, high, wide):
    resized = photographs.read(save(tmp_path / "a.png", ramp(high, wide)), (32, 32, 3))
    assert resized.shape == (32, 32, 3) and resized.dtype == np.uint8
    assert resized[:, 0, 0].max() < 15 and resized[:, -1, 0].min() > 240
    assert resized[0, :, 1].max() < 15 and resized[-1, :, 1].min() > 240


@pytest.mark.parametrize("high,wide", [(256, 512), (512, 256), (300, 300), (100, 200)])
def test_a_large_network_sees_the_centre_0875_of_the_short_side(tmp_path, high, wide):
    resized = photographs.read(save(tmp_path / "a.png", ramp(high, wide)), (224, 224, 3))
    assert resized.shape == (224, 224, 3)
    for channel, length, row in ((0, wide, resized[112, :, 0]), (1, high, resized[:, 112, 1])):
        seen = 0.875 * min(high, wide) / length
        assert row[0] / 255 == pytest.approx((1 - seen) / 2, abs=0.01), channel
        assert row[-1] / 255 == pytest.approx((1 + seen) / 2, abs=0.01), channel


def test_the_standard_protocol_is_256_then_224(tmp_path):
    path = save(tmp_path / "a.png", RNG.integers(0, 256, (300, 400, 3)).astype(np.uint8))
    with Image.open(path) as image:
        resized = image.resize((341, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[16:240, 58:282]
    np.testing.assert_array_equal(photographs.read(path, (224, 224, 3)), expected)


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "bmp", "webp", "tiff"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_every_kind_of_image_gets_the_networks_channels(tmp_path, form, mode):
    path = tmp_path / f"a.{form}"
    try:
        Image.fromarray(COLOUR).convert(mode).save(path)
    except (OSError, ValueError):
        pytest.skip(f"no {form} holds {mode}")
    for channels in (1, 3, 4):
        assert photographs.read(path, (32, 32, channels)).shape == (32, 32, channels)


def test_16_bits_become_8(tmp_path):
    pixels = RNG.integers(0, 2**16, (8, 8)).astype(np.uint16)
    resized = photographs.read(save(tmp_path / "a.png", pixels), (8, 8, 1))
    np.testing.assert_array_equal(resized[..., 0], pixels >> 8)


def test_16_bits_of_an_unknown_white_are_refused(tmp_path):
    path = save(tmp_path / "a.png", RNG.integers(0, 2**12, (8, 8)).astype(np.uint16))
    with pytest.raises(ValueError, match="its pixels have 16 bits and none is above .* 8 bits"):
        photographs.read(path, (8, 8, 1))


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_the_exif_orientation_is_ignored_as_in_a_data_set_and_can_be_told(tmp_path, form):
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF orientation: the viewer must turn the image by 90 degrees
    path = save(tmp_path / f"a.{form}", COLOUR[:8, :12], exif=exif)
    seen = photographs.read(path, (8, 12, 3))
    np.testing.assert_array_equal(seen, images.decode(path.read_bytes(), 3))
    assert photographs.is_turned(path)
    assert not photographs.is_turned(save(tmp_path / f"b.{form}", COLOUR[:8, :8]))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(tmp_path, kind):
    path = save(tmp_path / "a.tif", RNG.integers(0, 256, (8, 8)).astype(kind))
    with pytest.raises(ValueError, match="of unknown range; save it with 8 bits"):
        photographs.read(path, (8, 8, 1))


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000)])
def test_the_centre_of_a_strip_is_what_the_whole_strip_would_show(size, monkeypatch):
    """Resized whole, the strip of 4000 x 3 pixels would have 114,688 x 86."""
    pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    part = photographs.fit_pixels(pixels, (64, 64, 3)).astype(int)
    monkeypatch.setattr(photographs, "THIN", 10**6)
    whole = photographs.fit_pixels(pixels, (64, 64, 3)).astype(int)
    assert abs(part - whole).max() <= 2


def test_what_cannot_be_read_is_one_line_with_its_name(tmp_path):
    whole = save(tmp_path / "whole.png", COLOUR).read_bytes()
    # A header of 20,000 x 20,000 pixels without any pixels.
    head, none = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"IDAT"
    chunk = lambda kind: struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", crc32(kind))
    huge = whole[:8] + chunk(head) + chunk(none)
    files = {
        "none.png": (None, "does not exist"),
        "text.png": (b"thesis", "it is not an image in one of the formats BMP, GIF"),
        "empty.jpg": (b"", "it is not an image in one of the formats BMP, GIF"),
        "cut.png": (whole[:3000], "cannot be read"),
        "huge.png": (huge, "is too large; at most"),
    }
    for name, (data, message) in files.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            photographs.read(path, (32, 32, 3))
        assert str(path) in str(error.value) and "\n" not in str(error.value)
