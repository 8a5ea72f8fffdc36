"""Picture files of any kind, read as upright sRGB pixels; masks; and pictures as large as one likes.

The one place that decodes a picture file: the canvas, the commands and training read through it.
Pixels are uint8 (H, W, 3); sizes are (width, height). A file is untrusted: only formats that Pillow
decodes itself are tried, and the size is looked at before anything is decoded.
Source: Exif 2.32 (orientation); ICC.1:2010 (colour profiles).
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

from studio import recipes
from studio.errors import PictureError

MOST_PIXELS = 200_000_000
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}

# Not EPS, for which Pillow runs another program, and nothing that nobody keeps pictures in.
_FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF"),
    *("JPEG2000", "TGA", "ICO", "QOI", "PSD"),
)
_BROKEN = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError)
_BROKEN += (AttributeError, RuntimeError, struct.error, zlib.error)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[i] for i in (5, 6, 7, 8)}
_PLAIN = {"RGB", "RGBA", "L", "LA", "RGBX"}
_LARGE = 20_000_000  # pixels: of those, one is decoded at a time, for memory's sake
_PROFILED = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space, Pillow's mode


@dataclass(frozen=True)
class Photo:
    """A picture as it was read: uint8 (H, W, 3), upright, sRGB; `alpha` uint8 (H, W), 255 opaque.

    Where it is transparent, `pixels` keeps the colours of the file, which nobody has seen;
    `on_white` is what one sees. `note` says what was changed on reading.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None  # None if the whole picture is opaque
    name: str
    note: str = ""

    @property
    def on_white(self) -> np.ndarray:
        """The picture laid on white, uint8 (H, W, 3)."""
        if self.alpha is None:
            return self.pixels
        return np.array(_laid(Image.fromarray(self.pixels), Image.fromarray(self.alpha), "white"))


@dataclass(frozen=True)
class Glance:
    """A picture that is one of many: in mode RGB, laid on a background, perhaps smaller than it is;
    the `size` of its file, upright; and what its file is like.
    """

    image: Image.Image
    size: tuple[int, int]
    transparent: bool
    animated: bool  # or of several pages: it is the first
    converted: bool  # from other colours than RGB or grey of 8 bits, or by its profile


@dataclass(frozen=True)
class _Decoded:
    """A picture out of its file: RGB, alpha (mode L) or None, and what was done to it."""

    image: Image.Image
    alpha: Image.Image | None
    notes: tuple[str, ...]
    size: tuple[int, int] = (0, 0)  # of the file, upright
    animated: bool = False
    converted: bool = False


def read(path: Path) -> Photo:
    """The picture in a file. Raises PictureError if it is missing, damaged, no picture or too large."""
    found = _decoded(path)
    alpha = None if found.alpha is None else np.array(found.alpha)
    return Photo(np.array(found.image), alpha, path.name, "; ".join(found.notes))


def read_rgb(path: Path, least: int | None = None, background: str = "white") -> Image.Image:
    """The picture in a file, in mode RGB, laid on a background if it is transparent.

    With `least`, it may come smaller than it is, but no side shorter than `least`: large JPEGs are
    then read several times faster. Raises PictureError as `read` does.
    """
    return glance(path, least, background).image


def glance(path: Path, least: int | None = None, background: str = "white") -> Glance:
    """As `read_rgb`, with what the file is like. Raises PictureError as `read` does."""
    found, image = _decoded(path, least), None
    if found.alpha is not None:
        image = _laid(found.image, found.alpha, background)
    transparent = found.alpha is not None
    return Glance(image or found.image, found.size, transparent, found.animated, found.converted)


def read_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """A mask, uint8 (H, W), 255 where to repaint: how opaque the picture in the file is, if that is
    not the same everywhere, else how bright.

    Raises PictureError if it cannot be read, or is not of `size` (width, height).
    """
    found = _decoded(path)
    if size is not None and found.image.size != tuple(size):
        (w, h), (wide, high) = found.image.size, size
        raise PictureError(
            f"The mask {path.name} is {w} × {h} pixels; the picture is {wide} × {high}.",
            "Give a mask of the picture's size.",
        )
    if found.alpha is not None and len(set(found.alpha.getextrema())) > 1:
        return np.array(found.alpha)
    return np.array(found.image.convert("L"))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask, bool or uint8 (H, W), as a grey PNG; True is white. Raises SaveError."""
    levels = mask.astype(np.uint8) * 255 if mask.dtype == np.bool_ else mask
    recipes.write_png(path, levels[..., None])


def write(
    path: Path,
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    recipe: dict[str, Any] | None = None,
) -> None:
    """Write a picture, uint8 (H, W, C), as a PNG with its transparency, uint8 (H, W), and the job
    that made it. Raises SaveError if it cannot be written.
    """
    if alpha is not None:
        colours = pixels if pixels.shape[-1] == 3 else pixels.repeat(3, axis=-1)
        pixels = np.concatenate([colours, alpha[..., None]], axis=-1)
    recipes.write_png(path, pixels, recipe)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 (H, W) or (H, W, C) with C 1, 3 or 4, scaled to `size` (width, height).

    By Lanczos' filter; a fourth channel is taken for alpha, which the colours are weighted by. At the
    same size, the same values.
    """
    height, width = pixels.shape[:2]
    if (width, height) == tuple(size):
        return pixels.copy()
    flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    image = Image.fromarray(flat).resize(size, Image.Resampling.LANCZOS)
    return np.array(image).reshape(size[1], size[0], *pixels.shape[2:])


# -- out of the file ------------------------------------------------------------------------------


def _decoded(path: Path, least: int | None = None) -> _Decoded:
    """Raises PictureError, in one sentence that begins with the file's name where it is there."""
    if not path.exists():
        raise PictureError(f"There is no picture at {path}.")
    if not path.is_file():  # a pipe would be waited for
        raise PictureError(f"{path.name} is a folder or device, not a picture.")
    try:
        with _own_limit(), Image.open(path, formats=_formats()) as image:
            _check_size(image, path.name)
            size, plain = image.size, _is_plain(image)
            if least is not None:
                image.draft(None, (least, least))
            with _one_at_a_time(image):
                image.load()
                return _upright(_in_colour(image), _turn(image), size, plain)
    except UnidentifiedImageError as error:
        raise _no_picture(path) from error
    except MemoryError as error:
        raise PictureError(f"{path.name} is too large for this computer's memory.") from error
    except PermissionError as error:
        raise PictureError(f"{path.name} is not open to you.", "Change its permissions.") from error
    except _BROKEN as error:
        short = isinstance(error, EOFError) or "truncated" in str(error)
        why = "cut short: a part of the file is missing" if short else "damaged and cannot be read"
        raise PictureError(f"{path.name} is {why}.", "Fetch or save it again.") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(f for f in _FORMATS if f in Image.OPEN)


_lock = threading.Lock()
_readers = 0
_pillows_limit: int | None = None


@contextlib.contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow's limit is off while any of our readers is at work: it warns, where ours refuses."""
    global _readers, _pillows_limit
    with _lock:
        if _readers == 0:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


_large = threading.Lock()


@contextlib.contextmanager
def _one_at_a_time(image: Image.Image) -> Iterator[None]:
    """Waits while another large picture is decoded; not for ever, since its disk may hang."""
    held = image.width * image.height > _LARGE and _large.acquire(timeout=30)
    try:
        yield
    finally:
        if held:
            _large.release()


def _is_plain(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet is of 8-bit RGB or grey, as it stands in its file."""
    return image.mode in _PLAIN and not any(
        ";16" in str(tile) for tile in getattr(image, "tile", ())
    )


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise PictureError(
            f"{name} is too large: {width} × {height} pixels, where {MOST_PIXELS:,} in all can be "
            "read.",
            "Make it smaller in another program.",
        )


def _no_picture(path: Path) -> PictureError:
    """What to say of a file that no decoder knows."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return PictureError(f"{path.name} is empty.", "Fetch or save it again.")
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        hint = "Save it as JPEG or PNG with the program that shows it."
        return PictureError(f"{path.name} is an AVIF picture, which cannot be read here.", hint)
    if head[4:8] == b"ftyp":
        hint = "Save it as JPEG or PNG with the program that shows it."
        return PictureError(f"{path.name} is a HEIC photo or film, which cannot be read.", hint)
    if _is_text(head):
        return PictureError(f"{path.name} is not a picture.", "It holds text, whatever its name.")
    return PictureError(
        f"{path.name} is not a picture that can be read.", "Save it as PNG or JPEG."
    )


def _is_text(head: bytes) -> bool:
    # A character may be cut at the end of what was read: three bytes at most.
    for end in range(len(head), max(0, len(head) - 4), -1):
        with contextlib.suppress(UnicodeDecodeError):
            text = head[:end].decode("utf-8")
            return all(c.isprintable() or c.isspace() for c in text)
    return False


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn a picture whose camera was turned."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return None  # damaged notes of a camera: the picture itself is whole


def _upright(
    found: _Decoded, turn: Image.Transpose | None, size: tuple[int, int], plain: bool
) -> _Decoded:
    found = replace(found, size=size, converted=found.converted or not plain)
    if turn is None:
        return found
    alpha = None if found.alpha is None else found.alpha.transpose(turn)
    return replace(
        found,
        image=found.image.transpose(turn),
        alpha=alpha,
        notes=("turned upright", *found.notes),
        size=size[::-1] if turn in _SIDEWAYS else size,
    )


# -- to 8-bit sRGB --------------------------------------------------------------------------------


def _in_colour(image: Image.Image) -> _Decoded:
    """A loaded image of any mode as RGB and alpha."""
    notes: list[str] = []
    # A camera's file of several pictures (MPO) holds the photo first, then helps for depth or light.
    animated = getattr(image, "is_animated", False) and image.format != "MPO"
    if animated:
        notes.append("the first of several pictures in the file")
    if image.mode[0] in "IF":
        plain, alpha, note = _eight_bits(image)
        notes.append(note)
    else:
        plain, alpha = _without_alpha(image)
    colours, note = _srgb(plain, image.info.get("icc_profile"))
    if note:
        notes.append(note)
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    return _Decoded(colours, alpha, tuple(notes), animated=animated, converted=bool(note))


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode in ("P", "PA", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    return image.convert("L") if image.mode == "1" else image, None


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None, str]:
    """(mode L, alpha or None, note) of greys with more than 8 bits, scaled and not clipped.

    Numbers with a fraction run from 0 to 1, 255 or 65535, whichever they fit; others are stretched.
    """
    values = np.asarray(image)
    key = image.info.get("transparency")
    alpha = None if not isinstance(key, int) else Image.fromarray(np.uint8(255) * (values != key))
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    tops = (1.0, 255.0, 65535.0) if image.mode[0] == "F" else (65535.0,)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is None:
        note, top = "stretched from its darkest value to its brightest", high - low
    else:
        note, low = "scaled from more than 8 bits a value", 0.0
    scaled = np.rint((values - low) * (255 / top)).astype(np.uint8)
    return Image.fromarray(scaled), alpha, note


def _srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """(mode RGB in sRGB, note) of an image of mode L, RGB, CMYK or LAB with its colour profile."""
    if features.check("littlecms2"):
        try:
            converted = _by_profile(image, profile)
        except (ImageCms.PyCMSError, *_BROKEN):
            return image.convert("RGB"), "its colour profile is damaged and was left out"
        if converted is not None:
            return converted
    note = "converted from CMYK without a colour profile" if image.mode == "CMYK" else ""
    return image.convert("RGB"), note


def _by_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str] | None:
    """(sRGB, note), or None if no profile is needed for that. Raises PyCMSError on a damaged one."""
    if image.mode == "LAB":
        source, name = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB"
    elif profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = _printable(ImageCms.getProfileDescription(source))
        # As it is meant to be already: a conversion would only round.
        if name.startswith("sRGB"):
            return None
        mode = _PROFILED.get(cast(Any, source).profile.xcolor_space)
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode != image.mode:
            return None
    else:
        return None
    screen = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.PERCEPTUAL
    transform = ImageCms.buildTransform(source, screen, image.mode, "RGB", intent)
    converted = cast(Image.Image, ImageCms.applyTransform(image, transform))
    return converted, f"colours converted from {name or 'its profile'} to sRGB"


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()[:60]


def _laid(image: Image.Image, alpha: Image.Image, background: str) -> Image.Image:
    return Image.composite(image, Image.new("RGB", image.size, background), alpha)
