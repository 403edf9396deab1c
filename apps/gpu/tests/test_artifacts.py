"""Artifacts: bytes by their hash, for those who uploaded them or were granted them, and nobody else."""

import hashlib

import pytest

from aitbc.accounts import parameters
from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.models import Artifact, ArtifactGrant
from apps.gpu.services import uploads
from apps.gpu.tests.steps import lease_of, read, refused, start, submit

pytestmark = pytest.mark.usefixtures("artifacts_dir")
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/v1/artifacts/{SHA256}"


def stored_files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def body_of(response) -> bytes:
    return b"".join(response.streaming_content)  # at its end the test client closes the response


def test_what_was_uploaded_comes_back(alice, artifacts_dir):
    response = alice.put(PATH, CONTENT)

    assert (response.status_code, read(response)) == (201, {"sha256": SHA256, "size": len(CONTENT)})
    answer = alice.get(PATH)
    assert (answer.status_code, body_of(answer)) == (200, CONTENT)
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Length"] == str(len(CONTENT))
    assert (answer["Accept-Ranges"], answer["ETag"]) == ("bytes", f'"{SHA256}"')
    assert stored_files(artifacts_dir) == [SHA256]


def test_an_empty_artifact_is_one(alice):
    sha256 = hashlib.sha256(b"").hexdigest()

    uploads.store(owner=alice.id, sha256=sha256, read=lambda size: b"", length=0)

    assert body_of(alice.get(f"/v1/artifacts/{sha256}")) == b""
    refused(alice.get(f"/v1/artifacts/{sha256}", range="bytes=0-"), 416, "artifact.range")


def test_other_bytes_than_the_hash_says_leave_nothing(alice, artifacts_dir):
    before = snapshot()

    refused(alice.put(PATH, CONTENT + b"!"), 422, "artifact.hash_mismatch")

    assert stored_files(artifacts_dir) == []
    assert snapshot() == before
    refused(alice.get(PATH), 404, "artifact.unknown")


@pytest.mark.parametrize("sha256", ["0" * 63, "G" * 64, SHA256.upper(), "x"])
def test_a_name_that_is_no_hash_is_refused(alice, artifacts_dir, sha256):
    refused(alice.put(f"/v1/artifacts/{sha256}", CONTENT), 422, "artifact.hash")
    refused(alice.get(f"/v1/artifacts/{sha256}"), 404, "artifact.unknown")

    assert stored_files(artifacts_dir) == []


def test_an_upload_that_breaks_off_leaves_nothing(alice, artifacts_dir):
    """The declared length never arrives, or the connection dies while it does."""
    before = snapshot()

    def short(size, left=[CONTENT[:5000]]):  # noqa: B006 - the default is the stream's own state
        return left.pop() if left else b""

    with pytest.raises(uploads.Invalid):
        uploads.store(owner=alice.id, sha256=SHA256, read=short, length=len(CONTENT))

    def broken(size, left=[CONTENT[:5000]]):  # noqa: B006
        if left:
            return left.pop()
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        uploads.store(owner=alice.id, sha256=SHA256, read=broken, length=len(CONTENT))

    assert stored_files(artifacts_dir) == []
    assert snapshot() == before


def test_a_body_over_the_limit_is_refused_before_it_is_read(alice, artifacts_dir, settings):
    settings.MAX_ARTIFACT_BYTES = len(CONTENT) - 1

    assert refused(alice.put(PATH, CONTENT), 413, "request.too_large")
    assert stored_files(artifacts_dir) == []


def test_a_body_of_unknown_length_is_refused(alice, artifacts_dir):
    """A quota cannot be checked before the body when nobody says how long it is."""
    refused(alice.put(PATH, None), 422, "artifact.length")


def test_a_stream_that_is_longer_than_the_limit_is_cut_off(alice, artifacts_dir, settings):
    settings.MAX_ARTIFACT_BYTES = 1000

    with pytest.raises(uploads.Invalid) as caught:
        uploads.store(owner=alice.id, sha256=SHA256, read=lambda size: b"x" * 600, length=10)

    assert caught.value.code == "artifact.too_large"
    assert stored_files(artifacts_dir) == []


def test_the_quota_counts_what_an_owner_uploaded_and_is_checked_before_the_body(alice, mallory, artifacts_dir):
    parameters.change(name="max_stored_bytes", value=len(CONTENT) + 10, by=None)
    assert alice.put(PATH, CONTENT).status_code == 201
    assert alice.put(PATH, CONTENT).status_code in (201, 429)

    other = b"0123456789!"
    response = alice.put(f"/v1/artifacts/{hashlib.sha256(other).hexdigest()}", other)

    refused(response, 429, "artifact.quota")
    assert stored_files(artifacts_dir) == [SHA256]
    assert mallory.put(PATH, CONTENT).status_code == 201  # the same bytes count for each of their owners


# -- ranges --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10000-", 10_000, len(CONTENT) - 1),
        ("bytes=0-999999", 0, len(CONTENT) - 1),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT) - 1),
        ("bytes=-999999", 0, len(CONTENT) - 1),
    ],
)
def test_a_range_is_answered_with_its_bytes(alice, header, first, last):
    alice.put(PATH, CONTENT)

    response = alice.get(PATH, range=header)

    assert response.status_code == 206
    assert body_of(response) == CONTENT[first : last + 1]
    assert response["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert response["Content-Length"] == str(last - first + 1)


def test_an_interrupted_download_is_resumed(alice):
    alice.put(PATH, CONTENT)
    begun = body_of(alice.get(PATH, range="bytes=0-3999"))

    rest = body_of(alice.get(PATH, range=f"bytes={len(begun)}-"))

    assert hashlib.sha256(begun + rest).hexdigest() == SHA256


@pytest.mark.parametrize("header", [f"bytes={len(CONTENT)}-", "bytes=20-10", "bytes=-0"])
def test_a_range_outside_the_bytes_is_refused(alice, header):
    alice.put(PATH, CONTENT)

    refused(alice.get(PATH, range=header), 416, "artifact.range")


@pytest.mark.parametrize("header", ["lines=1-2", "bytes=0-1,5-6", "bytes=a-b", "bytes=" + "9" * 5000 + "-", "nonsense"])
def test_a_range_we_do_not_serve_is_answered_with_the_whole(alice, header):
    alice.put(PATH, CONTENT)

    response = alice.get(PATH, range=header)

    assert (response.status_code, body_of(response)) == (200, CONTENT)


# -- who may read --------------------------------------------------------------------------------
def test_knowing_the_hash_is_not_enough(alice, mallory):
    alice.put(PATH, CONTENT)

    refused(mallory.get(PATH), 404, "artifact.unknown")
    refused(mallory.get(f"/v1/artifacts/{'00' * 32}"), 404, "artifact.unknown")


def test_uploading_the_same_bytes_grants_them(alice, mallory, artifacts_dir):
    alice.put(PATH, CONTENT)

    assert mallory.put(PATH, CONTENT).status_code == 201

    assert body_of(mallory.get(PATH)) == CONTENT
    assert (Artifact.objects.count(), ArtifactGrant.objects.count()) == (1, 2)
    assert stored_files(artifacts_dir) == [SHA256]


def test_claiming_the_hash_with_other_bytes_grants_nothing(alice, mallory):
    alice.put(PATH, CONTENT)

    refused(mallory.put(PATH, b"other bytes"), 422, "artifact.hash_mismatch")

    refused(mallory.get(PATH), 404, "artifact.unknown")
    assert body_of(alice.get(PATH)) == CONTENT


def test_an_input_is_open_to_the_leased_miner_for_as_long_as_it_holds_the_lease(alice, mike, nora):
    alice.put(PATH, CONTENT)
    job = submit(alice, input=None, input_artifact=SHA256)
    refused(mike.get(PATH), 404, "artifact.unknown")

    (lease,) = mike.poll()
    assert body_of(mike.get(PATH)) == CONTENT
    refused(nora.get(PATH), 404, "artifact.unknown")
    start(mike, lease)
    assert body_of(mike.get(PATH, range="bytes=0-9")) == CONTENT[:10]

    alice.post(f"/v1/jobs/{job['id']}/cancel")
    refused(mike.get(PATH), 404, "artifact.unknown")


def test_a_model_named_inside_the_input_is_open_to_the_leased_miner_too(alice):
    miner = cast.seller("onnx", kinds=("onnx.infer",))
    alice.put(PATH, CONTENT)
    lease_of(alice, miner, kind="onnx.infer", input={"model": SHA256, "inputs": {}})

    assert body_of(miner.get(PATH)) == CONTENT


def test_an_output_is_granted_to_the_jobs_client(alice, mike, mallory):
    lease = lease_of(alice, mike)
    mike.put(PATH, CONTENT)
    refused(alice.get(PATH), 404, "artifact.unknown")

    response = deliver_artifact(mike, lease, SHA256)

    assert response.status_code == 200, response.content
    assert body_of(alice.get(PATH)) == CONTENT
    refused(mallory.get(PATH), 404, "artifact.unknown")
    result = read(alice.get(f"/v1/jobs/{lease['id']}/result"))
    assert (result["output"], result["output_artifact"]) == (None, SHA256)


def test_a_miner_cannot_deliver_bytes_that_it_never_uploaded(alice, mike, mallory):
    """Else its job's client would be granted what a stranger uploaded."""
    lease = lease_of(alice, mike)
    mallory.put(PATH, CONTENT)
    before = snapshot()

    refused(deliver_artifact(mike, lease, SHA256), 404, "artifact.unknown")

    assert snapshot() == before
    refused(alice.get(PATH), 404, "artifact.unknown")


def test_a_client_cannot_reach_a_strangers_bytes_through_a_job(alice, mallory, mike):
    alice.put(PATH, CONTENT)

    refused(mallory.post("/v1/jobs", cast.job_body(input=None, input_artifact=SHA256)), 404, "artifact.unknown")


@pytest.mark.parametrize(
    ("scopes", "put", "get"),
    [
        (("jobs:write", "jobs:read"), 201, 200),
        (("miner",), 201, 200),
        (("jobs:read",), 403, 200),
        (("jobs:write",), 201, 403),
        (("money:read",), 403, 403),
    ],
)
def test_either_sides_scope_will_do(db, scopes, put, get):
    someone = cast.person("someone", scopes=scopes)
    uploads.store(owner=someone.id, sha256=SHA256, read=_once(), length=len(CONTENT))

    assert someone.put(PATH, CONTENT).status_code == put
    answer = someone.get(PATH)
    assert answer.status_code == get
    if get == 200:
        assert body_of(answer) == CONTENT


def _once():
    parts = [CONTENT]
    return lambda size: parts.pop() if parts else b""


def deliver_artifact(miner, lease, sha256):
    body = {
        "lease_token": lease["lease_token"],
        "output_artifact": sha256,
        "metrics": {},
        "statement_signature": miner.sign_result(lease, None, sha256),
    }
    return miner.post(f"/v1/miners/{lease['id']}/result", body)
