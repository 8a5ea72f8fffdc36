"""Picture files of every kind come in as one sees them; what is none is said in one sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from studio import photos, recipes
from studio.errors import PictureError, SaveError

needs_profiles = pytest.mark.skipif(
    not features.check("littlecms2"), reason="Pillow was built without littlecms"
)
# Pillow remarks on the damaged files that are tried here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
WIDTH, HEIGHT = 24, 16


def gradient(width=WIDTH, height=HEIGHT):
    """Red grows to the right, green downwards, blue is even: any turn, flip or swap shows."""
    across = np.linspace(20, 235, width).astype(np.uint8)
    down = np.linspace(20, 235, height).astype(np.uint8)
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0], pixels[..., 1] = across[None], down[:, None]
    return pixels


PIXELS = gradient()
IMAGE = Image.fromarray(PIXELS)
SHADES = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)


def near(pixels, wanted, by):
    assert pixels.shape == wanted.shape
    assert np.abs(pixels.astype(int) - wanted.astype(int)).max() <= by


@pytest.fixture
def saved(tmp_path):
    def save(image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return photos.read(tmp_path / name)

    return save


# -- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "by"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.ppm", {}, 0),
        ("a.tif", {"compression": "tiff_lzw"}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.jpg", {"quality": 95}, 25),
        ("wrong name.jpg", {"format": "PNG"}, 0),
        ("no name", {"format": "PNG"}, 0),
        ("猫 #1 100%.PNG", {}, 0),
    ],
)
def test_a_picture_of_any_format_is_read(saved, name, options, by):
    photo = saved(IMAGE, name, **options)
    near(photo.pixels, PIXELS, by)
    assert (photo.pixels.dtype, photo.alpha, photo.name) == (np.uint8, None, name)
    assert photo.note == ""


@pytest.mark.parametrize(
    ("mode", "name", "by"),
    [("CMYK", "a.tif", 2), ("CMYK", "a.jpg", 40), ("YCbCr", "a.tif", 3), ("P", "a.gif", 60)],
)
def test_colours_of_any_kind_become_rgb(saved, mode, name, by):
    near(saved(IMAGE.convert(mode), name).pixels, PIXELS, by)


@needs_profiles
def test_lab_colours_become_rgb(saved):
    screen, lab = (ImageCms.createProfile(space) for space in ("sRGB", "LAB"))
    transform = ImageCms.buildTransform(screen, lab, "RGB", "LAB")
    photo = saved(ImageCms.applyTransform(IMAGE, transform), "a.tif")
    near(photo.pixels, PIXELS, 20)  # eight bits of LAB are coarse in dark reds
    assert np.abs(photo.pixels.astype(int) - PIXELS).mean() < 1
    assert "LAB" in photo.note


def test_one_bit_is_black_and_white(saved):
    wanted = (np.indices((9, 11)).sum(0) % 2 * 255).astype(np.uint8)
    photo = saved(Image.fromarray(wanted).convert("1"))
    assert (photo.pixels == wanted[..., None]).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_deep_greys_are_scaled_and_not_clipped(saved, name):
    photo = saved(Image.fromarray(SHADES.astype(np.uint16)), name)
    near(photo.pixels[..., 1], SHADES / 257, 1)
    assert np.ptp(photo.pixels, axis=-1).max() == 0
    assert "8 bits" in photo.note


def png(colour_type, depth, rows):
    """A PNG of kinds that Pillow does not write. `rows`: bytes of each row."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    width = len(rows[0]) * 8 // depth // {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_deep_colours_are_scaled_and_not_clipped(tmp_path, kind, channels):
    deep = np.linspace(0, 65535, 5 * 7 * channels).astype(">u2").reshape(5, 7, channels)
    (tmp_path / "a.png").write_bytes(png(kind, 16, [row.tobytes() for row in deep]))
    photo = photos.read(tmp_path / "a.png")
    colours = deep[..., :3] if channels > 2 else deep[..., :1].repeat(3, -1)
    near(photo.pixels, colours / 257, 1)
    if channels != 3:
        near(photo.alpha, deep[..., -1] / 257, 1)


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_fractions_are_scaled_to_what_they_run_to(saved, top):
    values = (SHADES / 65535 * top).astype(np.float32)
    near(saved(Image.fromarray(values), "a.tif").pixels[..., 0], SHADES / 257, 1)


def test_values_without_a_scale_are_stretched(saved):
    values = np.array([[-3.0, 0.0], [4.5, np.nan]], np.float32)
    photo = saved(Image.fromarray(values), "a.tif")
    assert photo.pixels[..., 0].tolist() == [[0, 102], [255, 102]]
    assert "stretched" in photo.note


@pytest.mark.parametrize("first", ["a.gif", "a.webp", "a.tif", "a.png"])
def test_of_several_pictures_the_first_is_read(saved, first):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    photo = saved(frames[0], first, save_all=True, append_images=frames[1:])
    near(photo.pixels, np.full((6, 8, 3), (255, 0, 0)), 4)
    assert "first of several" in photo.note


# -- upright --------------------------------------------------------------------------------------

TURNED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.swapaxes(0, 1),
    6: np.rot90(PIXELS, 1),
    7: PIXELS.swapaxes(0, 1)[::-1, ::-1],
    8: np.rot90(PIXELS, -1),
}


@pytest.mark.parametrize("flag", list(TURNED))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_cameras_that_were_turned_give_upright_pictures(saved, name, flag):
    exif = Image.Exif()
    exif[0x0112] = flag
    options = {"lossless": True} if name == "a.webp" else {}
    photo = saved(Image.fromarray(np.ascontiguousarray(TURNED[flag])), name, exif=exif, **options)
    near(photo.pixels, PIXELS, 0)


def test_transparency_turns_with_the_picture(saved):
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).clip(0, 255).astype(np.uint8)
    both = np.dstack([PIXELS, alpha])
    photo = saved(Image.fromarray(np.ascontiguousarray(np.rot90(both, 1))), exif=exif)
    near(photo.alpha, alpha, 0)
    assert photo.note == "turned upright"


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_damaged_notes_of_a_camera_do_no_harm(saved, exif):
    near(saved(IMAGE, "a.jpg", exif=exif, quality=95).pixels, PIXELS, 25)


# -- transparency ---------------------------------------------------------------------------------


def see_through():
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, 12:], alpha[:, 10:12] = 255, 128
    return alpha, Image.fromarray(np.dstack([PIXELS, alpha]))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparency_is_read_and_hidden_colours_are_kept(saved, name):
    alpha, image = see_through()
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    photo = saved(image, name, **options)
    near(photo.alpha, alpha, 0)
    near(photo.pixels, PIXELS, 0)
    assert (photo.on_white[:, :10] == 255).all()
    near(photo.on_white[:, 12:], PIXELS[:, 12:], 0)
    near(photo.on_white[:, 10:12], (PIXELS[:, 10:12] + 255.0) / 2, 1)


def test_what_is_opaque_has_no_transparency(saved):
    assert saved(IMAGE.convert("RGBA")).alpha is None
    assert saved(IMAGE.convert("LA")).alpha is None


def test_grey_and_palette_can_be_transparent(saved):
    alpha, image = see_through()
    photo = saved(image.convert("LA"))
    near(photo.alpha, alpha, 0)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    photo = saved(palette, transparency=bytes([255, 40]))
    assert photo.pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[255, 40]]
    photo = saved(palette, "a.gif", transparency=0)
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 255]]


def test_one_colour_can_stand_for_transparency(saved):
    photo = saved(IMAGE, transparency=tuple(PIXELS[3, 5].tolist()))
    assert photo.alpha is not None
    assert np.argwhere(photo.alpha == 0).tolist() == [[3, 5]]
    deep = np.array([[7, 300], [40000, 7]], np.uint16)
    photo = saved(Image.fromarray(deep), transparency=7)
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 255], [255, 0]]


# -- colour profiles ------------------------------------------------------------------------------


def swapped_profile(name="Red is blue"):
    """A display profile in which red and blue are swapped: sRGB's own, its tags exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * profile[131], 12)}
    red, blue = table[b"rXYZ"], table[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        profile[blue + 4 : blue + 12],
        profile[red + 4 : red + 12],
    )
    old = "sRGB".encode("utf-16-be")
    at = profile.find(old)
    profile[at : at + len(old)] = name[:4].encode("utf-16-be")
    return bytes(profile)


@needs_profiles
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_colours_are_converted_from_their_profile(saved, name):
    options = {"lossless": True} if name == "a.webp" else {}
    photo = saved(IMAGE, name, icc_profile=swapped_profile(), **options)
    near(photo.pixels, PIXELS[..., ::-1], 2)
    assert "converted from Red" in photo.note


@needs_profiles
def test_greys_and_transparency_survive_a_profile(saved):
    alpha, image = see_through()
    photo = saved(image, icc_profile=swapped_profile())
    near(photo.alpha, alpha, 0)
    near(photo.pixels, PIXELS[..., ::-1], 2)
    grey = saved(IMAGE.convert("L"), icc_profile=swapped_profile())
    near(grey.pixels, np.asarray(IMAGE.convert("L").convert("RGB")), 2)


@needs_profiles
def test_the_screens_own_profile_changes_nothing(saved):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = saved(IMAGE, icc_profile=own)
    near(photo.pixels, PIXELS, 0)
    assert photo.note == ""


@needs_profiles
@pytest.mark.parametrize("profile", [b"no profile at all", swapped_profile()[:300]])
def test_a_damaged_profile_is_left_out(saved, profile):
    photo = saved(IMAGE, icc_profile=profile)
    near(photo.pixels, PIXELS, 0)
    assert "damaged" in photo.note


@needs_profiles
def test_a_profile_of_other_colours_is_left_out(saved):
    near(saved(IMAGE.convert("CMYK"), "a.tif", icc_profile=swapped_profile()).pixels, PIXELS, 2)


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000), (30_000, 5)])
def test_pictures_of_odd_sizes_are_read(saved, size):
    photo = saved(Image.fromarray(gradient(*size)))
    near(photo.pixels, gradient(*size), 0)


def huge(width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png(2, 8, [b"\0\0\0"]).replace(
        png(2, 8, [b"\0\0\0"])[16:33], head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    )


@pytest.mark.parametrize("side", [14_143, 20_000, 10**6])
def test_too_large_a_picture_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(huge(side, side))
    with pytest.raises(PictureError, match=rf"{side} × {side}.*200,000,000"):
        photos.read(tmp_path / "bomb.png")


def test_the_limit_is_ours_and_pillows_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    IMAGE.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no")
    near(photos.read(tmp_path / "a.png").pixels, PIXELS, 0)
    with pytest.raises(PictureError):
        photos.read(tmp_path / "b.png")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_many_can_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    IMAGE.save(tmp_path / "a.png")
    found = []

    def read():
        found.extend(photos.read(tmp_path / "a.png") for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert Image.MAX_IMAGE_PIXELS == 100


# -- what is no picture ---------------------------------------------------------------------------


def sentence(path):
    with pytest.raises(PictureError) as refused:
        photos.read(path)
    message = refused.value.message
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x.jpg is empty"),
        (b"Dear diary, ", "x.jpg is not a picture."),
        ("Grüße".encode()[:-1], "x.jpg is not a picture."),
        (b"\0\x01\x02" * 50, "x.jpg is not a picture that"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.jpg is not a picture"),
        (b"\x89PNG\r\n\x1a\n broken", "x.jpg is"),
        (b"\xff\xd8\xff\xe0", "x.jpg is"),
        (b"GIF89a", "x.jpg is"),
        (b"II*\0\xff\xff\xff\xff", "x.jpg is"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "x.jpg is"),
    ],
    ids=lambda v: str(v)[:14],
)
def test_what_is_no_picture_is_said_in_one_sentence(tmp_path, content, said):
    (tmp_path / "x.jpg").write_bytes(content)
    assert said in sentence(tmp_path / "x.jpg")


def test_what_is_not_there_is_said(tmp_path):
    assert "no picture at" in sentence(tmp_path / "none.png")
    assert "folder" in sentence(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp"])
def test_a_file_that_was_cut_is_said(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0.2, 0.6, 0.9):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        assert name in sentence(tmp_path / name)


def test_a_damaged_file_is_a_picture_or_a_sentence(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "a.tif", "a.gif", "a.webp"):
        buffer = io.BytesIO()
        IMAGE.save(buffer, Image.registered_extensions()[f".{name[2:]}"])
        for _ in range(25):
            damaged = bytearray(buffer.getvalue())
            for place in rng.integers(0, min(len(damaged), 400), 3):
                damaged[place] = rng.integers(256)
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(PictureError):
                assert photos.read(tmp_path / name).pixels.ndim == 3


# -- for training ---------------------------------------------------------------------------------


def test_training_reads_what_the_canvas_shows(tmp_path):
    _, image = see_through()
    image.save(tmp_path / "a.png")
    near(
        np.asarray(photos.read_rgb(tmp_path / "a.png")), photos.read(tmp_path / "a.png").on_white, 0
    )


def test_a_large_jpeg_may_be_read_smaller_but_no_smaller_than_said(tmp_path):
    Image.fromarray(gradient(800, 600)).save(tmp_path / "a.jpg", quality=95)
    small = photos.read_rgb(tmp_path / "a.jpg", least=100)
    assert 100 <= min(small.size) < 200
    near(np.asarray(small.resize((80, 60))), gradient(80, 60), 8)
    assert photos.read_rgb(tmp_path / "a.jpg").size == (800, 600)


# -- masks, writing, scaling ----------------------------------------------------------------------

MASK = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint8)


@pytest.mark.parametrize("mask", [MASK, MASK > 100], ids=["levels", "bool"])
def test_a_mask_comes_back_as_it_was_written(tmp_path, mask):
    photos.write_mask(tmp_path / "new" / "mask.png", mask)
    back = photos.read_mask(tmp_path / "new" / "mask.png", (WIDTH, HEIGHT))
    assert (back == (mask * 255 if mask.dtype == bool else mask)).all()
    assert back.dtype == np.uint8


def test_a_mask_is_brightness_or_what_is_painted_on_nothing(tmp_path):
    Image.fromarray(MASK).convert("RGB").save(tmp_path / "grey.png")
    assert (photos.read_mask(tmp_path / "grey.png") == MASK).all()
    alpha, painted = see_through()
    painted.save(tmp_path / "painted.png")
    assert (photos.read_mask(tmp_path / "painted.png") == alpha).all()
    for even in (255, 128):
        grey_alpha = Image.merge(
            "LA", [Image.fromarray(c) for c in (MASK, np.full_like(MASK, even))]
        )
        grey_alpha.save(tmp_path / "even.png")
        assert (photos.read_mask(tmp_path / "even.png") == MASK).all()


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    photos.write_mask(tmp_path / "mask.png", MASK)
    with pytest.raises(PictureError, match=rf"{WIDTH} × {HEIGHT} pixels.*{HEIGHT} × {WIDTH}"):
        photos.read_mask(tmp_path / "mask.png", (HEIGHT, WIDTH))


def test_what_is_written_comes_back_with_transparency_and_recipe(tmp_path):
    alpha, _ = see_through()
    photos.write(tmp_path / "a.png", PIXELS, alpha, {"model": "critters"})
    photo = photos.read(tmp_path / "a.png")
    near(photo.pixels, PIXELS, 0)
    near(photo.alpha, alpha, 0)
    assert recipes.read_recipe(tmp_path / "a.png") == {"model": "critters"}
    photos.write(tmp_path / "b.png", PIXELS[..., :1], alpha)
    near(photos.read(tmp_path / "b.png").pixels, PIXELS[..., :1].repeat(3, -1), 0)


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError):
        photos.write(tmp_path / "file" / "a.png", PIXELS)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,)], ids=str)
def test_scaling_keeps_the_kind_of_picture(shape):
    flat = np.full((HEIGHT, WIDTH, *shape), 200, np.uint8)
    small = photos.resized(flat, (6, 5))
    assert small.shape == (5, 6, *shape)
    assert (small == 200).all()
    assert photos.resized(flat, (1, 30_000)).shape == (30_000, 1, *shape)


def test_scaling_to_the_same_size_changes_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    same = photos.resized(noise, (WIDTH, HEIGHT))
    assert (same == noise).all()
    assert same is not noise


def test_scaling_does_not_draw_in_hidden_colours():
    cut_out = np.zeros((8, 8, 4), np.uint8)
    cut_out[:, :4] = (250, 10, 10, 255)
    small = photos.resized(cut_out, (3, 3))
    seen = small[..., 3] > 8
    assert (np.abs(small[seen][:, 0].astype(int) - 250) < 12).all()


# -- one of many ----------------------------------------------------------------------------------


def test_a_glance_tells_what_the_file_is_like(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient(800, 600)).convert("CMYK").save(tmp_path / "a.jpg", exif=exif)
    seen = photos.glance(tmp_path / "a.jpg", 100)
    assert seen.size == (600, 800)
    assert 100 <= min(seen.image.size) <= 200
    assert seen.converted
    assert not seen.transparent
    assert not seen.animated


def test_a_glance_lays_what_is_transparent_on_the_colour_that_is_asked_for(tmp_path):
    Image.new("RGBA", (5, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    seen = photos.glance(tmp_path / "a.png", background="#336699")
    assert seen.transparent
    assert seen.image.getcolors() == [(20, (0x33, 0x66, 0x99))]


def test_an_avif_that_this_pillow_cannot_read_is_called_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_formats", lambda: ("PNG", "JPEG"))
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(64))
    with pytest.raises(PictureError, match="an AVIF picture"):
        photos.read(tmp_path / "a.avif")
