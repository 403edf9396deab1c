import pytest

from aitbc.core.testing import cast
from apps.gpu.models import Job
from apps.gpu.runtimes import misfits
from apps.gpu.services import typed
from apps.gpu.services.miners import DeviceClaim
from apps.gpu.tests.steps import read, refused

SHA = "a" * 64
WORDS = {
    "llm": {"model": "llama-7b", "prompt": 'say "{model}" {max_tokens}'},
    "speech": {"audio": SHA},
    "image": {"image": SHA},
    "embedding": {"texts": ["a", "b"]},
    "video": {"video": SHA},
}


def test_the_catalogue_is_public_and_prices_only_what_a_miner_runs_now(alice, client):
    cast.seller("dear", kinds=("audio.vad",), price="0.002")
    cast.seller("cheap", kinds=("audio.vad",), price="0.001")

    items = {item["type"]: item for item in read(client.get("/v1/services"))["items"]}

    assert set(items) == set(WORDS)
    assert {name: item["price"] for name, item in items.items() if item["price"]} == {"speech": "0.06"}
    assert items["speech"]["kind"] == "audio.vad"
    assert items["llm"]["vram_gb"] == {"70b": 64, "8x7b": 48, "34b": 32, "13b": 16, "7b": 8}


@pytest.mark.parametrize("name", WORDS)
def test_every_service_makes_an_input_that_its_kind_takes(name):
    order = typed.order_of(name, WORDS[name], "1")

    assert misfits(order.kind, "input", order.input) == []
    assert order.max_price == "1"


def test_what_a_client_writes_is_never_read_as_a_template():
    given = typed.order_of("llm", WORDS["llm"] | {"prompt": "{model}"}, "1").input

    assert given["messages"] == [{"role": "user", "content": "{model}"}]
    assert (given["max_tokens"], given["temperature"]) == (512, 1)


@pytest.mark.parametrize(
    ("model", "vram"),
    [
        ("Llama-7B", 8),
        ("llama-13b", 16),
        ("codellama-34b", 32),
        ("mixtral-8x7b", 48),
        ("llama-70B", 64),
        ("tiny", None),
    ],
)
def test_the_memory_follows_the_model(model, vram):
    order = typed.order_of("llm", WORDS["llm"] | {"model": model}, "1")

    assert (order.min_vram_gb, order.models) == (vram, (model,))


@pytest.mark.parametrize(
    ("name", "words", "loc", "said"),
    [
        ("video", {"video": SHA, "custom_args": "-vf x"}, [], "'custom_args' was unexpected"),
        ("video", {"video": SHA, "encoder": "copy; rm -rf /"}, ["encoder"], "is not one of"),
        ("video", {"video": SHA, "crf": 52}, ["crf"], "maximum of 51"),
        ("llm", {"model": "x", "prompt": "x" * 10_001}, ["prompt"], "xxx"),
        ("speech", {}, [], "'audio' is a required property"),
    ],
)
def test_what_does_not_fit_is_named(alice, name, words, loc, said):
    problem = refused(alice.post(f"/v1/services/{name}", {"input": words}), 422, "job.invalid_input")

    assert problem["errors"][0]["loc"] == ["body", "input", *loc]
    assert said in problem["errors"][0]["msg"]
    assert Job.objects.count() == 0


def test_the_command_of_a_film_is_the_platforms():
    order = typed.order_of("video", {"video": SHA, "encoder": "libx265", "crf": 30, "fps": 24}, "1")

    assert order.input["command"][-7:] == ["-c:v", "libx265", "-crf", "30", "-r", "24", "../out/video.mkv"]
    assert (order.input["files"], order.models) == ({"video": SHA}, ("ffmpeg",))


def test_a_service_becomes_a_job_held_at_the_price_of_the_catalogue(alice):
    big = DeviceClaim(uuid="GPU-1", kind="cpu", model="x", memory_mb=8 * 1024)
    small = cast.seller("small", kinds=("llm.chat",), models=("llama-7b",), price="0.0001")
    mike = cast.seller("mike", kinds=("llm.chat",), models=("llama-7b",), device=big)

    job = read(alice.post("/v1/services/llm", {"input": WORDS["llm"]}, idempotency_key="one"))
    again = read(alice.post("/v1/services/llm", {"input": WORDS["llm"]}, idempotency_key="one"))

    assert (job["kind"], job["payment"]["held"]["amount"]) == (
        "llm.chat",
        "0.06",
    )  # 60 s at 0.001: small does not count
    assert again["id"] == job["id"]
    assert small.poll() == []
    assert [lease["id"] for lease in mike.poll()] == [job["id"]]


def test_without_a_miner_there_is_no_price_and_without_a_service_nothing(alice):
    refused(alice.post("/v1/services/llm", {"input": WORDS["llm"]}), 409, "service.unavailable")
    refused(alice.post("/v1/services/whisper", {"input": {}}), 404, "service.unknown")
    assert Job.objects.count() == 0
    price = {"amount": "0.01", "asset": "AIT"}

    waiting = alice.post("/v1/services/llm", {"input": WORDS["llm"], "max_price": price})

    assert (waiting.status_code, read(waiting)["state"]) == (201, "queued")
