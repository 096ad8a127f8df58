"""Tests of decoding; an image that is too large is refused by its header and never decoded."""

import io
import struct
import subprocess
import sys
from zlib import crc32

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_jax.data import images

RNG = np.random.default_rng(0)


def encoded(pixels, form, mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def noise(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def png_header(high, wide):
    """A PNG of this size that ends before its pixels: decoding would raise another error."""
    head = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    chunk = lambda kind: struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", crc32(kind))
    return b"\x89PNG\r\n\x1a\n" + chunk(head) + chunk(b"IDAT")


def jpeg_header(high, wide):
    """A JPEG of 7x9 whose header states this size."""
    data = encoded(noise(7, 9, 3), "jpeg")
    return data.replace(struct.pack(">HH", 7, 9), struct.pack(">HH", high, wide))


@pytest.fixture
def undecoded(monkeypatch):
    """Fail the test if a JPEG is decoded."""

    def refuse(*words, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_jpeg_is_what_the_library_makes_of_it(channels, options):
    shape = 8, 10, channels
    data = encoded(noise(*shape), "jpeg", **options)
    decoded = images.decode_exactly(data, shape)
    np.testing.assert_array_equal(decoded, simplejpeg.decode_jpeg(data, images.SPACES[channels]))
    np.testing.assert_array_equal(images.decode(data, channels), decoded)
    usual = images.usual([data], shape)
    np.testing.assert_array_equal(usual, [not options.get("progressive")])
    if usual.all():
        np.testing.assert_array_equal(images.decode_usual([data, data], shape), [decoded, decoded])


def segment(kind, data):
    return bytes([0xFF, kind]) + struct.pack(">H", 2 + len(data)) + data


@pytest.mark.parametrize("channels,start", [(1, 89), (3, 158)])
def test_what_only_looks_like_a_usual_jpeg_is_none(undecoded, channels, start):
    shape = 8, 10, channels
    data = encoded(noise(*shape), "jpeg")
    frame = data[start : start + 10]
    assert frame[:2] == b"\xff\xc0" and images.usual([data], shape).all()
    other = [
        encoded(noise(10, 8, channels), "jpeg"),
        encoded(noise(8, 10, 4 - channels), "jpeg"),
        encoded(noise(*shape), "png"),
        data[:start],
        b"",
        # A comment at the usual position of the frame holds another frame; the real frame follows.
        data[:2] + segment(0xFE, bytes(start - 6) + frame) + data[2:],
        data[:20] + segment(0xFE, bytes(start - 24) + frame) + data[20:],
    ]
    mask = images.usual([data, *other, data], shape)
    np.testing.assert_array_equal(mask, [True, *[False] * len(other), True])
    for shape in ((None, None, channels), (8, 2**16, channels), (8, 10, 4)):
        assert not images.usual([data], shape).any()


@pytest.mark.parametrize("form", ["png", "webp", "bmp"])
def test_other_forms_come_back_exactly(form):
    pixels = noise(8, 10, 3)
    decoded = images.decode_exactly(encoded(pixels, form, lossless=True), pixels.shape)
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("file", [png_header, jpeg_header])
@pytest.mark.parametrize("high,wide", [(9_001, 9_000), (8, 11), (9, 10)])
def test_what_is_of_another_size_is_refused_by_its_header(undecoded, file, high, wide):
    with pytest.raises(ValueError, match=rf"its image is \({high}, {wide}, 3\), not \(8, 10, 3\)"):
        images.decode_exactly(file(high, wide), (8, 10, 3))


@pytest.mark.parametrize("file", [png_header, jpeg_header])
@pytest.mark.parametrize(
    "high,wide", [(9_500, 9_500), (60_000, 60_000), (1, images.MAX_PIXELS + 1)]
)
def test_more_pixels_than_the_limit_are_refused_by_the_header(undecoded, file, high, wide):
    if file is jpeg_header and wide >= 2**16:
        pytest.skip("no JPEG is so wide")
    for read in (lambda data: images.decode(data, 3), lambda d: images.open_image(io.BytesIO(d))):
        with pytest.raises(ValueError, match="its image is too large; at most 89,478,485 pixels"):
            read(file(high, wide))


def test_pillow_has_no_words_of_its_own_for_what_is_too_large():
    program = (
        "import io; from resnet_jax.data import images\n"
        f"try: images.decode({png_header(9_500, 9_500)!r}, 3)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "its image is too large" in done.stdout and not done.stderr


@pytest.mark.parametrize("file", [png_header, jpeg_header])
def test_the_limit_holds_if_pillow_has_none(undecoded, file, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ValueError, match="its image is too large"):
        images.decode(file(20_000, 20_000), 3)


def test_the_limit_itself_is_let_through():
    assert images.open_image(io.BytesIO(png_header(1, images.MAX_PIXELS))).height == 1
    with pytest.raises(Exception, match="^(?!.*too large)"):
        images.decode(png_header(1, images.MAX_PIXELS), 3)


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(4, 6, 1), "jpeg"),
        encoded(noise(4, 6, 1), "jpeg", progressive=True),
        encoded(noise(4, 6, 4), "jpeg", "CMYK"),
        encoded(noise(4, 6, 1), "png"),
        encoded(noise(4, 6, 3), "png", "LA"),
        encoded(noise(4, 6, 4), "png"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_other_channels_are_converted_as_pillow_converts_them(data, channels):
    image = Image.open(io.BytesIO(data))
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(4, 6, channels)
    for pixels in (images.decode(data, channels), images.decode_exactly(data, (4, 6, channels))):
        # The JPEG library's own conversions round otherwise.
        assert abs(pixels.astype(int) - expected).max() <= 2


def test_a_palette_holds_colours():
    data = encoded(noise(4, 6, 3), "png", "P")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(images.decode_exactly(data, (4, 6, 3)), expected)


def test_pixels_of_16_bits_are_not_cut():
    file = io.BytesIO()
    Image.fromarray(noise(4, 6, 1)[..., 0].astype(np.uint16) * 9).save(file, "png")
    for read in (
        lambda: images.decode(file.getvalue(), 1),
        lambda: images.decode_exactly(file.getvalue(), (4, 6, 1)),
    ):
        with pytest.raises(ValueError, match="its pixels have more than 8 bits"):
            read()


def test_formats_that_start_programs_are_not_opened():
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with Image.open(io.BytesIO(script)) as image:
        assert image.format == "EPS"
    with pytest.raises(
        ValueError, match="it is not an image in one of the formats BMP, GIF, JPEG, PNG"
    ):
        images.decode(script, 3)


WHOLE = {form: encoded(noise(8, 10, 3), form) for form in ("jpeg", "png", "gif", "bmp", "webp")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_file_is_pixels_or_an_exception(form, draw):
    data = bytearray(WHOLE[form])
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[at] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))])
    shape = 8, 10, 3
    try:
        assert images.decode_exactly(data, shape).shape == shape
        assert images.decode(data, 3).shape == shape
        if images.usual([data], shape).all():
            assert images.decode_usual([data], shape).shape == (1, *shape)
    except Exception as error:
        assert not isinstance(error, MemoryError)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_with_bytes_before_its_end_marker_is_decoded_as_pillow_decodes_it(options):
    good = encoded(noise(16, 24, 3), "jpeg", **options)
    data = good[:-2] + bytes(200) + good[-2:]
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    for decoded in (images.decode(data, 3), images.decode_exactly(data, (16, 24, 3))):
        np.testing.assert_array_equal(decoded, simplejpeg.decode_jpeg(good, "RGB"))
        assert abs(decoded.astype(int) - pixels).max() <= 1


def test_a_jpeg_that_lacks_data_is_refused_with_and_without_an_end_marker():
    good = encoded(noise(64, 96, 3), "jpeg")
    half = good[: len(good) // 2]
    for data in (half, half + good[-2:], half + bytes(50) + good[-2:], good[:-2]):
        with pytest.raises(ValueError, match="(?i)premature end"):
            images.decode(data, 3)
