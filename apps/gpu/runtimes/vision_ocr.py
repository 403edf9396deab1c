"""`vision.ocr`: the lines of text in a picture, by PP-OCRv4 in rapidocr-onnxruntime, weights in its wheel."""

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any, Final

from apps.gpu.runtimes import onnx_infer
from apps.gpu.runtimes.contract import Context, Runtime, RuntimeFailure, invalid_input, missing_packages

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS: Final = 24_000_000
MAX_SIDE: Final = 16_384
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP")


def _is_artifact(image: str) -> bool:
    return len(image) == 64  # as base64 48 bytes, too few for any picture; the schema asks for more


def artifacts(job: Any) -> tuple[str, ...]:
    return (job["image"],) if _is_artifact(job["image"]) else ()


def _bytes(image: str, context: Context) -> bytes:
    if _is_artifact(image):
        return context.artifact(image).read_bytes()
    try:
        return base64.b64decode(image, validate=True)
    except binascii.Error as error:
        raise invalid_input("the picture is not base64") from error


def _too_large(what: str) -> RuntimeFailure:
    return invalid_input(f"the picture {what}; at most {MAX_PIXELS} pixels and {MAX_SIDE} on a side")


def _decode(content: bytes) -> "np.ndarray":
    """BGR pixels. The header alone decides on the size, before a single pixel is decoded."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise _too_large(f"is {width} x {height} pixels")
            return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("has far too many pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise invalid_input(f"not a whole picture in one of {', '.join(FORMATS)}") from error


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    """Lines from top to bottom; the box goes clockwise from the top left, in pixels of the picture."""
    pixels = _decode(_bytes(job["image"], context))
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(
        intra_op_num_threads=context.threads,
        **dict.fromkeys(("det_use_cuda", "cls_use_cuda", "rec_use_cuda"), context.device == "cuda"),
        # Search at the picture's own size; enlarging small ones to 736 pixels, the default, costs
        # four times as much.
        det_limit_type="max",
        det_limit_side_len=2_000,
    )
    found, _ = engine(pixels)
    lines = [
        {"text": text, "score": float(score), "box": [[float(x), float(y)] for x, y in box]}
        for box, text, score in found or []
    ]
    height, width = pixels.shape[:2]
    return {"lines": lines}, {"width": width, "height": height, "lines": len(lines)}


def available(device: str) -> str | None:
    if missing := missing_packages("rapidocr_onnxruntime", "cv2", "PIL", "shapely", "pyclipper", "yaml"):
        return missing
    return onnx_infer.available(device)


RUNTIME: Final = Runtime(
    kind="vision.ocr",
    run=run,
    available=available,
    artifacts=artifacts,
    preload=("numpy", "PIL.Image", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "rapidocr_onnxruntime"),
)
