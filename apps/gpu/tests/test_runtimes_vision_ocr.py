import base64
import hashlib
import io
import struct
import zlib

import jsonschema
import pytest
from PIL import Image

from apps.gpu import demo
from apps.gpu.runtimes import vision_ocr
from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path, {}, threads=2)


def inline(content):
    return {"image": base64.b64encode(content).decode()}


def test_text_in_a_picture_is_read_where_it_stands(context):
    job = inline(demo.picture("Invoice 2471", "total 99.50"))

    output, metrics = vision_ocr.run(job, context)

    jsonschema.validate(job, vision_ocr.RUNTIME.input_schema)
    jsonschema.validate(output, vision_ocr.RUNTIME.output_schema)
    assert [line["text"] for line in output["lines"]] == ["Invoice 2471", "total 99.50"]
    assert metrics["lines"] == 2
    for line in output["lines"]:
        assert line["score"] > 0.8
        assert all(0 <= x <= metrics["width"] and 0 <= y <= metrics["height"] for x, y in line["box"])
    assert output["lines"][0]["box"][2][1] < output["lines"][1]["box"][0][1]


def test_a_picture_without_text_has_no_lines(context):
    file = io.BytesIO()
    Image.new("RGB", (200, 100), "white").save(file, "PNG")

    assert vision_ocr.run(inline(file.getvalue()), context)[0] == {"lines": []}


def test_a_picture_may_be_an_artifact(tmp_path):
    content = demo.picture("artifact 7")
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "a").write_bytes(content)
    job = {"image": sha256, "languages": ["en"]}

    output, _ = vision_ocr.run(job, Context(tmp_path, {sha256: tmp_path / "a"}, threads=2))

    jsonschema.validate(job, vision_ocr.RUNTIME.input_schema)
    assert vision_ocr.artifacts(job) == (sha256,)
    assert vision_ocr.artifacts(inline(content)) == ()
    assert [line["text"] for line in output["lines"]] == ["artifact 7"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_other_modes_are_read_too(context, mode):
    file = io.BytesIO()
    Image.open(io.BytesIO(demo.picture("mode 42"))).convert(mode).save(file, "PNG")

    assert vision_ocr.run(inline(file.getvalue()), context)[0]["lines"][0]["text"] == "mode 42"


def bomb(width, height):
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(5_000, 5_000), (20_000, 10), (10, 20_000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_before_decoding(context, width, height):
    with pytest.raises(RuntimeFailure) as caught:
        vision_ocr.run(inline(bomb(width, height)), context)

    assert caught.value.code == Code.INVALID_INPUT
    assert "pixels" in caught.value.message


@pytest.mark.parametrize(
    "content", [b"GIF89a" + b"\0" * 60, b"\x89PNG\r\n\x1a\n" + b"\0" * 60, bomb(10, 10), demo.picture("cut off")[:-200]]
)
def test_what_is_not_a_whole_picture_of_an_accepted_format_is_refused(context, content):
    with pytest.raises(RuntimeFailure) as caught:
        vision_ocr.run(inline(content), context)

    assert caught.value.code == Code.INVALID_INPUT


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"image": ""},
        {"image": "AAAA"},
        {"image": "not base64!" * 20},
        {"image": "A" * 1_400_004},
        {"image": "/etc/passwd"},
        {"image": "A" * 80, "languages": ["tlh"]},
        {"image": "A" * 80, "languages": []},
        {"image": "A" * 80, "other": 1},
    ],
)
def test_the_schema_refuses_what_the_runtime_does_not_take(job):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, vision_ocr.RUNTIME.input_schema)
