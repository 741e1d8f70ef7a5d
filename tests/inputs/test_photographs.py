"""Photographs from files: every format, upright, scaled by its range and cut without asking for more than there is."""

from __future__ import annotations

import resource
import sys
import warnings

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image, ImageOps

from lightning_cnnvis import DeepDream, InputSpec
from lightning_cnnvis.inputs.photographs import (
    PhotographError,
    find_photographs,
    fit_photograph,
    open_photograph,
    read_fitted,
    read_photograph,
)
from lightning_cnnvis.posthoc.images import ImageFiles

RAMP = np.linspace(0, 1, 64)[None].repeat(48, 0)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def saved(folder, pixels, name: str = "photo.png", mode: str | None = None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(folder / name, **options)
    return folder / name


# Formats.


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.ppm", "x.tif", "x.webp"])
def test_eight_bits(tmp_path, name):
    pixels = noise(20, 30, 3)
    options = {"lossless": True} if name.endswith("webp") else {}
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert torch.equal(read_photograph(saved(tmp_path, pixels, name, **options)), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_channels(tmp_path, mode, channels):
    file = saved(tmp_path, noise(20, 30, 4), mode=mode)
    photo = read_photograph(file, channels)
    assert photo.shape == (channels, 20, 30)
    assert photo.dtype == torch.float32
    if channels in {2, 4} and mode != "P":  # a palette has few colours, with their alpha
        alpha = torch.from_numpy(noise(20, 30, 4)[..., 3]) / 255 if mode in {"LA", "RGBA"} else torch.ones(20, 30)
        assert torch.equal(photo[-1], alpha)
    if channels == 4 and mode == "RGBA":
        assert torch.equal(photo, torch.from_numpy(noise(20, 30, 4)).permute(2, 0, 1) / 255)


def test_channels_that_no_photograph_has(tmp_path):
    with pytest.raises(ValueError, match=r"cannot have 6 channels\. Give images as a tensor"):
        read_photograph(saved(tmp_path, noise(4, 4, 3)), 6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("values", "name"),
    [
        (RAMP * 65535, "16.png"), (RAMP * 65535, "16.tif"), (RAMP * 4095, "12.png"), (RAMP * 1023, "10.tif"),
        (RAMP * 16383, "14.png"), (RAMP * 255, "8.png"),
    ],
)  # fmt: skip
def test_sixteen_bits(tmp_path, values, name, channels):
    photo = read_photograph(saved(tmp_path, values.round().astype(np.uint16), name), channels)
    shown = photo[:3] if channels == 4 else photo
    torch.testing.assert_close(shown, torch.tensor(RAMP).float().expand_as(shown), atol=1 / 255, rtol=0)
    if channels == 4:
        assert photo[3].eq(1).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP * 100000).astype(np.int32), RAMP * 100000 / (2**17 - 1)),
        ((RAMP * 2**31 - 1).clip(0).astype(np.int32), RAMP),
        ((RAMP * 4095 - 1024).astype(np.int32), RAMP),  # as in computed tomography, from -1024
        (RAMP.astype(np.float32), RAMP),
        ((RAMP * 255).astype(np.float32), RAMP),
        ((RAMP * 1e6).astype(np.float32), RAMP),
        ((RAMP * 2 - 1).astype(np.float32), RAMP),
        ((RAMP * 0.5).astype(np.float32), RAMP * 0.5),
    ],
)
def test_integers_and_floats_of_32_bits(tmp_path, values, expected):
    file = saved(tmp_path, values, "deep.tif")
    photo = read_photograph(file)
    torch.testing.assert_close(photo, torch.tensor(expected).float().expand(3, -1, -1), atol=2e-3, rtol=0)
    eight_bits = torch.from_numpy(np.array(open_photograph(file))).permute(2, 0, 1) / 255
    torch.testing.assert_close(eight_bits, photo, atol=1 / 255, rtol=0)


def test_values_that_are_not_numbers(tmp_path):
    values = RAMP.astype(np.float32)
    values[0, :3] = [np.nan, np.inf, -np.inf]
    photo = read_photograph(saved(tmp_path, values, "holes.tif"), 1)
    assert photo[0, 0, :3].eq(0).all()
    assert photo.isfinite().all()
    blank = read_photograph(saved(tmp_path, np.full((3, 3), np.nan, np.float32), "blank.tif"), 1)
    assert blank.eq(0).all()
    assert read_photograph(saved(tmp_path, np.full((3, 3), -7, np.int32), "flat.tif"), 1).eq(0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["phone.jpg", "phone.png", "deep.png"])
def test_orientation(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = (RAMP * 65535).astype(np.uint16) if name == "deep.png" else noise(30, 20, 3)
    file = saved(tmp_path, pixels, name, exif=exif)
    with Image.open(file) as image:
        upright = np.asarray(ImageOps.exif_transpose(image), dtype=np.float32)
    expected = torch.from_numpy(upright / upright.max()).reshape(*upright.shape[:2], -1).permute(2, 0, 1)
    photo = read_photograph(file)
    assert photo.shape[1:] == expected.shape[1:]
    torch.testing.assert_close(photo, expected.expand_as(photo), atol=0.01, rtol=0)
    assert open_photograph(file).size == photo.shape[:0:-1]


# Files that are not photographs.


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no picture", lambda data: data[:200]])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
def test_what_cannot_be_read_is_named(tmp_path, name, damage):
    file = saved(tmp_path, noise(40, 50, 3), name)
    file.write_bytes(damage(file.read_bytes()))
    for read in (read_photograph, open_photograph):
        with pytest.raises(PhotographError, match=rf"{name}' cannot be read as a picture: "):
            read(file)
    with pytest.raises(MisconfigurationException, match=rf"{name}' cannot be read as a picture"):
        DeepDream(image=file)


@pytest.mark.parametrize("read", [read_photograph, open_photograph])
@pytest.mark.parametrize("most", [1500, 700])  # Pillow warns of the first and refuses the second
def test_more_pixels_than_are_safe(tmp_path, monkeypatch, most, read):
    small, large = saved(tmp_path, noise(10, 10, 3), "small.png"), saved(tmp_path, noise(40, 50, 3), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PhotographError, match=r"large\.png' cannot be read as a picture: .*pixels"):
            read(large)
    files = ImageFiles([large, small])
    with pytest.warns(UserWarning, match=r"large\.png was skipped, because it cannot be read \(.*pixels"):
        assert len(files.first(2, InputSpec(size=(8, 8)))) == 1
    assert list(files.skipped) == [large]


# Fitting.


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (60, 1), (1, 7), (48, 48), (33, 47)])
def test_a_photograph_of_exactly_the_size_is_untouched(tmp_path, size):
    pixels = noise(*size, 3)
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert torch.equal(fit_photograph(expected, size), expected)
    assert torch.equal(ImageFiles([saved(tmp_path, pixels)]).first(1, InputSpec(size=size))[0], expected)


@pytest.mark.parametrize("times", [2, 3, 0.5])
@pytest.mark.parametrize("size", [(64, 128), (128, 64), (64, 64)])
def test_a_photograph_of_the_same_shape_shows_whole(size, times):
    height, width = (int(times * side) for side in size)
    photo = torch.zeros(1, height, width)
    edge = max(1, int(8 * times))
    photo[:, :edge] = photo[:, -edge:] = 1
    photo[:, :, :edge] = photo[:, :, -edge:] = 1
    fitted = fit_photograph(photo, size)
    for line in (fitted[0, 0], fitted[0, -1], fitted[0, :, 0], fitted[0, :, -1]):
        assert line.gt(0.9).all()
    assert fitted[0, size[0] // 2, size[1] // 2] == 0


@pytest.mark.parametrize("shape", [(30, 90), (90, 30), (41, 40), (5, 7)])
@pytest.mark.parametrize("size", [(24, 48), (48, 24), (32, 32)])
def test_it_covers_the_input_and_keeps_its_proportions(shape, size):
    rows = torch.linspace(0, 1, shape[0])[:, None].expand(shape)
    columns = torch.linspace(0, 1, shape[1])[None].expand(shape)
    fitted = fit_photograph(torch.stack([rows, columns]), size)
    assert fitted.shape == (2, *size)
    scale = max(size[0] / shape[0], size[1] / shape[1])
    for values, side, full in ((fitted[0, :, 0], size[0], shape[0]), (fitted[1, 0], size[1], shape[1])):
        share = side / (scale * full)
        assert float(values.max() - values.min()) == pytest.approx(share, abs=2.2 / min(full, side))
        assert float(values.max() + values.min()) == pytest.approx(1, abs=2 / min(full, side))


@pytest.mark.parametrize(("resize", "size", "share"), [
    (256, 224, 224 / 256), (232, 224, 224 / 232), (256, 64, 7 / 8), (None, 64, 1), (40, 64, 1), (342, 299, 299 / 342)
])  # fmt: skip
def test_the_window_of_published_weights(resize, size, share):
    ramp = torch.linspace(0, 1, 512).expand(1, 512, 512)
    window = fit_photograph(ramp, (size, size), resize)
    assert float(window.max() - window.min()) == pytest.approx(share, abs=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory")
@pytest.mark.parametrize("size", [(1, 60000), (60000, 1)])
def test_a_very_long_picture_does_not_ask_for_gigabytes(tmp_path, size):
    file = saved(tmp_path, Image.new("L", size[::-1], 200), "line.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for spec in (InputSpec(size=(224, 224)), InputSpec(size=(64, 200), channels=1)):
        photo = ImageFiles([file]).first(1, spec)
        torch.testing.assert_close(photo, torch.full_like(photo, 200 / 255))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(("name", "mode"), [("x.jpg", "RGB"), ("x.png", "RGB"), ("x.png", "P"), ("x.png", "I;16")])
def test_very_large_pictures_are_reduced_while_they_are_read(tmp_path, monkeypatch, name, mode):
    ramp = np.linspace(0, 255, 800)[None].repeat(600, 0)
    if mode == "I;16":
        file = saved(tmp_path, (ramp * 257).astype(np.uint16), name)
    else:
        file = saved(tmp_path, ramp.astype(np.uint8), name, mode=mode)
    whole = fit_photograph(read_photograph(file), (40, 40))
    assert torch.equal(fit_photograph(read_photograph(file, size=(40, 40)), (40, 40)), whole)
    monkeypatch.setattr("lightning_cnnvis.inputs.photographs._MANY_PIXELS", 100_000)
    reduced = read_photograph(file, size=(40, 40))
    assert 80 <= min(reduced.shape[1:]) < 160
    torch.testing.assert_close(fit_photograph(reduced, (40, 40)), whole, atol=0.03, rtol=0)
    assert read_photograph(file).shape == (3, 600, 800)


# Folders.


def test_hidden_ones_are_left_out_and_links_followed(tmp_path):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for place in (folder / "sub", folder / ".thumbnails", elsewhere / ".trash"):
        place.mkdir(parents=True)
        saved(place, noise(4, 4, 3), "a.PNG")
    saved(elsewhere, noise(4, 4, 3), "linked.png")
    (folder / "._a.jpg").write_bytes(b"what a Mac leaves behind")
    (folder / "notes.txt").write_text("no image")
    (folder / "link").symlink_to(elsewhere)
    (folder / "sub" / "loop").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in find_photographs(folder)]
    assert found == ["link/linked.png", "sub/a.PNG"]
    assert len(ImageFiles.find(folder).paths) == 2
    # a folder that is hidden itself may be named
    assert len(find_photographs(folder / ".thumbnails")) == 1


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("I;16", 3)])
@pytest.mark.parametrize("shape", [(40, 50), (24, 24), (9, 300), (500, 400), (10, 11)])
def test_reading_and_fitting_at_once_changes_no_pixel(tmp_path, mode, channels, shape):
    values = np.random.default_rng(0).integers(0, 255, (*shape, channels), dtype=np.uint8)
    image = Image.fromarray(values[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(values.squeeze())
    image.save(tmp_path / "some.png")
    fitted = read_fitted(tmp_path / "some.png", channels, (24, 24), 26)
    one_by_one = fit_photograph(read_photograph(tmp_path / "some.png", channels), (24, 24), 26)
    assert torch.equal(fitted, one_by_one)
    assert fitted.is_contiguous()
