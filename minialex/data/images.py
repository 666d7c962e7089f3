"""Turns an image file into a square of pixels, in the same way for folders, stores and prediction.

An image is processed in these steps:

- it is decoded by content, not by name: JPEG, PNG, BMP, GIF, WebP or TIFF; the first frame of an animation, the first
  page of a TIFF. A JPEG at least four times too large is decoded at 1/2, 1/4 or 1/8 size (by libjpeg, inside the
  transform), as long as twice the final size remains; that saves up to nine tenths of the time and changes no pixel by
  more than a few levels;
- it is rotated upright by its EXIF tag; an unreadable tag is ignored; colour profiles are not applied;
- 16-bit grey is divided by 257; grey is copied to three channels; palettes are looked up; CMYK is converted;
- transparency is composited over white;
- it becomes a square, bilinear with antialiasing, in one of two orders (the recipe's field ``resize``):

  ``one-step``: the central square, to a fraction of a pixel, is scaled to `size` in one step (the default);
  ``resize-then-crop``: the shorter side is scaled to `size`, then the central square is cut out (section 2), at whole
  pixels, and no JPEG is decoded at reduced size: byte for byte the result of torchvision's ``Resize(size)`` and
  ``CenterCrop(size)``.

  The two give different pixels: their squares are up to half a pixel of the result apart, and the second stretches
  the longer side slightly, to whole pixels. Of 250 ImageNet photographs at 256 pixels, 17 become the same; the others
  differ by 3 levels of 255 on average, at edges by up to 155.

An image of more than `MOST_PIXELS` pixels, a truncated or damaged one, and a file that is not an image each raise a
`DataError` that says so.

JPEGs are decoded by simplejpeg if it is installed (it comes with minialex, except in the browser), otherwise by Pillow.
Both wrap libjpeg-turbo and give the same bytes. simplejpeg takes three quarters of the time (see
``benchmarks/results/prepare.json``) and, unlike Pillow, reports when the data were damaged and the decoder guessed.
"""

from __future__ import annotations

import io
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
UNREAD = (
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".ppm", ".pgm", ".pbm", ".tga", ".dds", ".exr",
    ".hdr", ".ico", ".dcm", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
)  # fmt: skip
"""File extensions of unsupported image formats: they are counted separately."""
MOST_PIXELS = 64_000_000  # below the limit at which Pillow itself warns of a decompression bomb
MOST_BYTES = 256 << 20  # of a file; no image of at most MOST_PIXELS pixels needs more
RESIZES = ("one-step", "resize-then-crop")
_DAMAGE = ("premature end", "bad huffman", "instead of rst")
"""Warnings of libjpeg, in lower case, that mean it certainly guessed pixels. Its other warnings may be harmless: such
an image is kept, and the warning is noted."""


class DecodedImage(NamedTuple):
    """An image and the conversions applied to it."""

    pixels: NDArray[np.uint8]  # [3, size, size], RGB
    notes: tuple[str, ...]  # what was unusual, in the words of ``treated.tsv``; mostly empty


def looks_like_image(name: str) -> bool:
    """Whether a file's name has the extension of a supported image format."""
    return name.rstrip().lower().endswith(ENDINGS)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: a missing, unreadable, empty or much too large file; the message does not name it
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block for ever
            raise DataError("no such image file: it is a folder, a pipe or a device.")
        with open(path, "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise DataError(f"a file of more than {MOST_BYTES >> 20} MiB ({size:,} bytes); shrink it.")
            data = file.read()
    except FileNotFoundError:
        raise DataError("no such image file.") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error}).") from None
    if not data:
        raise DataError("empty (0 bytes); replace or remove it.")
    return data


def read_image(path: str | os.PathLike[str], size: int, resize: str = "one-step") -> NDArray[np.uint8]:
    """Read an image file, uint8 [3, size, size], RGB; the module's docstring says how it is processed.

    Raises:
        DataError: a missing file, not an image, too many pixels, or a damaged or truncated image
    """
    try:
        return decode(read_bytes(path), size, str(path), resize).pixels
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def decode(data: bytes, size: int, name: str = "", resize: str = "one-step") -> DecodedImage:
    """Decode an image from the bytes of its file; `name` only serves to check its extension.

    Raises:
        DataError: not an image, too many pixels, or a damaged or truncated image; the message does not name the file
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}; shrink it.")
            notes = _notes(image, name)
            turn = _turn(image)
            if turn is not None:
                notes.append("EXIF rotation")
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                pixels, warning = _jpeg(image, data, size if resize == "one-step" else None)
                notes += [f"decoder's warning: {warning}"] if warning else []
            else:
                image.load()
                pixels = image
            upright = pixels if turn is None else pixels.transpose(turn)
            return DecodedImage(_square(upright, size, resize), tuple(notes))
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(f"not an image in a supported format ({', '.join(FORMATS)}).") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"a decompression bomb, or an image of more than {MOST_PIXELS:,} pixels; shrink it.") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(f"cannot be decoded ({error}); replace or remove it.") from None


def _notes(image: Image, name: str) -> list[str]:
    """What is unusual about an image, from its header."""
    kind = image.format or ""
    notes = []
    ending = os.path.splitext(name)[1].lower()
    usual = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".tif": "TIFF"}.get(
        ending, ending[1:].upper()
    )
    if ending in ENDINGS and kind not in (usual, "MPO"):
        notes.append(f"{kind} named {usual}")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        notes.append("16-bit grey")
    elif image.mode in ("L", "LA", "1"):
        notes.append("grey")
    elif image.mode in ("P", "PA"):
        notes.append("palette")
    elif image.mode not in ("RGB", "RGBA"):
        notes.append(image.mode)
    if image.has_transparency_data:
        notes.append("transparency")
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
        notes.append("first frame of several")
    return notes


def _jpeg(image: Image, data: bytes, size: int | None) -> tuple[Image, str]:
    """The pixels of an RGB or grey JPEG whose header has been read, and the decoder's warning; full size for None.

    Raises:
        DataError: truncated data, or data so damaged that the decoder guessed
    """
    from PIL import Image

    whole = image.size
    if size is not None:
        image.draft(image.mode, (2 * size, 2 * size))  # chooses 1/1 … 1/8; nothing is decoded yet
    try:
        import simplejpeg
    except ImportError:
        image.load()
        return image, ""
    width, height = image.size
    scale = {"min_height": height, "min_width": width, "min_factor": 2} if image.size != whole else {}
    decode = partial(simplejpeg.decode_jpeg, data, "RGB" if image.mode == "RGB" else "GRAY", **scale)
    warning = ""
    try:
        pixels: NDArray[np.uint8] = decode(strict=True)
    except ValueError as error:
        warning = str(error)
        if any(word in warning.lower() for word in _DAMAGE):
            raise DataError(f"damaged or cut short ({warning}); replace or remove it.") from None
        try:
            pixels = decode(strict=False)
        except ValueError:  # an unusual kind of JPEG, which libjpeg's simple interface does not support
            image.load()
            return image, warning
    if pixels.shape[:2] != (height, width):
        raise DataError(f"cannot be decoded ({width} x {height} pixels expected, {pixels.shape} came).")
    return Image.frombuffer(image.mode, image.size, np.ascontiguousarray(pixels), "raw", image.mode, 0, 1), warning


def _turn(image: Image) -> Transpose | None:
    """The transposition that turns an image upright by its EXIF tag; None if it is upright or the tag is unreadable."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    try:
        return turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # the pixels may be fine even if the tag is not
        return None


def _square(image: Image, size: int, resize: str) -> NDArray[np.uint8]:
    """The central square of an image of any mode, resized, uint8 [3, size, size].

    Raises:
        DataError: numbers without an agreed range, or an image so thin that its longer side would become excessive
    """
    from PIL import Image

    if image.mode == "F":
        raise DataError("floating-point pixels, which have no agreed range; convert it to 8 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError("32-bit pixels, which have no agreed range; convert it to 8 bits.")
        image = Image.fromarray(np.clip(values / 257 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    width, height = image.size
    side = min(width, height)
    if resize == "one-step":
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    else:
        width, height = int(size * width / side), int(size * height / side)
        if width * height > MOST_PIXELS:
            raise DataError(f"would have {width} x {height} pixels with a shorter side of {size}; crop it.")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)  # torchvision rounds halves to even, too
        image = image.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def from_pillow(image: Image, size: int, resize: str = "one-step") -> NDArray[np.uint8]:
    """Process a Pillow image of any mode and size like a file: uint8 [3, size, size], RGB."""
    if 0 in image.size:
        raise DataError(f"an image of {image.width} x {image.height} pixels has nothing to show.")
    turn = _turn(image)
    return _square(image if turn is None else image.transpose(turn), size, resize)


def from_array(array: NDArray[np.uint8], size: int, resize: str = "one-step") -> NDArray[np.uint8]:
    """Process an array of pixels, uint8 [H, W], [H, W, 3] or [3, H, W], to uint8 [3, size, size], RGB.

    Raises:
        ConfigurationError: any other shape or dtype
    """
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and 3 in (array.shape[0], array.shape[2]))):
        raise ConfigurationError(
            f"expected an image as uint8 [H,W], [H,W,3] or [3,H,W] of numbers from 0 to 255, got {array.dtype} "
            f"{list(array.shape)}"
        )
    if 0 in array.shape:
        raise ConfigurationError(f"an image of shape {list(array.shape)} has no pixels")
    if array.shape == (3, size, size):
        return array
    if array.ndim == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    return _square(Image.fromarray(np.ascontiguousarray(array)), size, resize)
