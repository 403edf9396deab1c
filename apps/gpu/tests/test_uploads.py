"""Uploads in parts: continued where they broke off, checked when they are whole, bounded per owner."""

import hashlib
import os
import threading
import time
from uuid import UUID

import pytest
from django.test import Client

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Conflict, TooMany
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from apps.gpu import tasks
from apps.gpu.models import ArtifactGrant
from apps.gpu.services import uploads
from apps.gpu.tests.steps import read, refused
from apps.gpu.tests.test_artifacts import body_of, stored_files

pytestmark = pytest.mark.usefixtures("artifacts_dir")
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def begin(who, content=CONTENT, **changes):
    body = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} | changes
    return who.post("/v1/uploads", body)


def opened(who, content=CONTENT) -> str:
    response = begin(who, content)
    assert response.status_code == 201, response.content
    return read(response)["id"]


def send(who, upload, offset, content, kind="application/offset+octet-stream"):
    headers = {"HTTP_AUTHORIZATION": f"Bearer {who.token}", "HTTP_UPLOAD_OFFSET": str(offset)}
    headers |= {"CONTENT_LENGTH": str(len(content)), "CONTENT_TYPE": kind}  # the test client sends none with no bytes
    return Client().generic("PATCH", f"/v1/uploads/{upload}", content, content_type=kind, **headers)


def offset_of(who, upload):
    response = who.call("HEAD", f"/v1/uploads/{upload}")
    assert (response.status_code, response["Tus-Resumable"]) == (204, "1.0.0")
    assert response["Cache-Control"] == "no-store"
    return int(response["Upload-Offset"]), int(response["Upload-Length"])


def test_an_artifact_comes_in_parts_and_is_granted_when_it_is_whole(alice, mallory, artifacts_dir):
    upload = opened(alice)
    assert offset_of(alice, upload) == (0, len(CONTENT))
    for first, last in ((0, 4000), (4000, 4001), (4001, len(CONTENT))):
        refused(alice.get(f"/v1/artifacts/{SHA256}"), 404, "artifact.unknown")
        response = send(alice, upload, first, CONTENT[first:last])
        assert (response.status_code, response["Upload-Offset"]) == (204, str(last))

    assert body_of(alice.get(f"/v1/artifacts/{SHA256}")) == CONTENT
    assert stored_files(artifacts_dir) == [SHA256]
    refused(mallory.get(f"/v1/artifacts/{SHA256}"), 404, "artifact.unknown")
    # The answer to the last part got lost: it is asked for and repeated, and granted once.
    assert offset_of(alice, upload) == (len(CONTENT), len(CONTENT))
    assert send(alice, upload, 4001, CONTENT[4001:])["Upload-Offset"] == str(len(CONTENT))
    assert ArtifactGrant.objects.count() == 1


def test_what_came_before_a_break_stays(alice):
    upload = UUID(opened(alice))
    parts = [CONTENT[:5000], OSError("connection lost")]

    def broken(size):
        part = parts.pop(0)
        if isinstance(part, OSError):
            raise part
        return part

    with pytest.raises(OSError, match="connection lost"):
        uploads.append(owner=alice.id, upload=upload, offset=0, read=broken, length=len(CONTENT))

    assert offset_of(alice, upload) == (5000, len(CONTENT))
    assert send(alice, upload, 5000, CONTENT[5000:]).status_code == 204
    assert body_of(alice.get(f"/v1/artifacts/{SHA256}")) == CONTENT


def test_other_bytes_than_announced_are_refused_and_nothing_of_them_stays(alice, artifacts_dir):
    upload = opened(alice)
    wrong = b"!" + CONTENT[1:]

    assert send(alice, upload, 0, wrong[:9000]).status_code == 204
    refused(send(alice, upload, 9000, wrong[9000:]), 422, "artifact.hash_mismatch")

    assert stored_files(artifacts_dir) == []
    refused(send(alice, upload, 0, CONTENT), 404, "upload.unknown")
    assert db.value("SELECT count(*) FROM gpu_upload") == 0
    assert ArtifactGrant.objects.count() == 0


def test_a_part_goes_where_the_upload_stands_and_nowhere_else(alice, mallory):
    upload = opened(alice)
    send(alice, upload, 0, CONTENT[:100])

    for offset in (0, 99, 101):
        assert "go on from byte 100" in refused(send(alice, upload, offset, b"x"), 409, "upload.offset")["detail"]
    refused(send(alice, upload, 100, CONTENT), 422, "artifact.too_large")
    refused(send(alice, upload, 100, b"x", kind="application/octet-stream"), 415, "request.media_type")
    refused(send(mallory, upload, 100, CONTENT[100:]), 404, "upload.unknown")
    refused(mallory.delete(f"/v1/uploads/{upload}"), 404, "upload.unknown")
    assert mallory.call("HEAD", f"/v1/uploads/{upload}").status_code == 404
    refused(send(alice, uuid7(), 0, b"x"), 404, "upload.unknown")
    assert offset_of(alice, upload) == (100, len(CONTENT))


def test_a_crash_between_the_store_and_the_grant_is_made_good(alice, monkeypatch):
    upload, call = opened(alice), uploads.call

    def dying(function, *arguments):
        if function == "gpu_upload_finish":
            raise OSError("killed")
        return call(function, *arguments)

    monkeypatch.setattr(uploads, "call", dying)
    with pytest.raises(OSError, match="killed"):
        uploads.append(owner=alice.id, upload=UUID(upload), offset=0, read=lambda n: CONTENT, length=len(CONTENT))
    monkeypatch.setattr(uploads, "call", call)
    refused(alice.get(f"/v1/artifacts/{SHA256}"), 404, "artifact.unknown")

    assert send(alice, upload, len(CONTENT), b"").status_code == 204
    assert body_of(alice.get(f"/v1/artifacts/{SHA256}")) == CONTENT


def test_beginning_again_with_the_same_key_is_the_same_upload(alice):
    body = {"sha256": SHA256, "size": 5}
    first, second = (read(alice.post("/v1/uploads", body, idempotency_key="u1")) for _ in range(2))

    assert first["id"] == second["id"]
    assert db.value("SELECT count(*) FROM gpu_upload") == 1


@pytest.mark.parametrize(("change", "status"), [({"sha256": "x"}, 422), ({"size": -1}, 422), ({"size": 2**45}, 422)])
def test_an_upload_of_no_artifact_is_refused(alice, change, status):
    assert begin(alice, **change).status_code == status
    assert db.value("SELECT count(*) FROM gpu_upload") == 0


def test_unfinished_uploads_have_a_quota_of_their_own_before_any_byte(alice, mallory):
    parameters.change(name="max_partial_bytes", value=len(CONTENT) + 10, by=None)
    upload = opened(alice)
    refused(begin(alice, b"12345678901"), 429, "upload.quota")
    assert begin(alice, b"1234567890").status_code == 201
    assert begin(mallory).status_code == 201

    assert alice.delete(f"/v1/uploads/{upload}").status_code == 204
    assert begin(alice, b"12345678901").status_code == 201


def test_unfinished_uploads_count_against_the_stored_bytes_too(alice):
    parameters.change(name="max_stored_bytes", value=len(CONTENT) + 10, by=None)
    opened(alice)

    refused(alice.put(f"/v1/artifacts/{hashlib.sha256(b'x' * 11).hexdigest()}", b"x" * 11), 429, "artifact.quota")


def test_two_at_once_cannot_both_have_the_last_bytes_of_a_quota(committed_db, in_threads):
    alice = cast.person("alice")
    parameters.change(name="max_stored_bytes", value=1000, by=None)

    def open_one(number):
        try:
            uploads.open_upload(owner=alice.id, sha256=f"{number:064x}", size=300)
        except TooMany:
            return "refused"
        return "opened"

    assert sorted(in_threads(open_one, 6)) == ["opened"] * 3 + ["refused"] * 3


def test_one_request_at_a_time_writes_an_upload(committed_db, in_threads):
    alice = cast.person("alice")
    upload, reading = UUID(opened(alice)), threading.Event()

    def one(number):
        def slow(size):
            reading.set()
            time.sleep(0.3)
            return CONTENT

        if number and not reading.wait(5):
            return "nobody wrote"
        try:
            return uploads.append(owner=alice.id, upload=upload, offset=0, read=slow, length=len(CONTENT))
        except Conflict as error:
            return error.code

    assert in_threads(one, 2) == [len(CONTENT), "upload.busy"]


def test_an_upload_that_nobody_goes_on_with_is_forgotten(alice, artifacts_dir):
    old, fresh = opened(alice), opened(alice, b"fresh")
    send(alice, old, 0, CONTENT[:10])
    send(alice, fresh, 0, b"fre")
    db.rows("UPDATE gpu_upload SET touched_at = touched_at - interval '2 days' WHERE id = %s", (UUID(old),))
    os.utime(artifacts_dir / "uploads" / old, (0, 0))

    assert tasks.keep() == 1

    assert stored_files(artifacts_dir) == [fresh]
    refused(send(alice, old, 10, CONTENT[10:]), 404, "upload.unknown")
    assert offset_of(alice, fresh) == (3, 5)
