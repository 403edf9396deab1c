"""The verdict on a receipt's page is computed from what is stored, when the page is asked for."""

import re

import pytest
from django.urls import reverse

from apps.gpu import receipts
from apps.gpu.models import Receipt
from apps.trading.models import ReceiptLeaf, SettlementBatch

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def page(console, model, job):
    html = console.get(reverse(f"admin:gpu_{model}_change", args=[job])).content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_an_anchored_receipt_is_valid_with_its_four_checks(console, scene):
    text = page(console, "receipt", scene.completed[0])
    batch = SettlementBatch.objects.get(leaves__job=scene.completed[0])

    assert "✓ valid, anchored" in text
    assert text.count("✓ holds") == 4
    assert f"Merkle root {batch.root}" in text
    assert f"Transaction {batch.tx_hash}" in text
    assert "✓ valid, anchored" in page(console, "job", scene.completed[0])


def test_a_receipt_without_an_anchor_says_what_it_waits_for(console, scene):
    ReceiptLeaf.objects.filter(job=scene.completed[0]).update(batch=None, position=None)
    text = page(console, "receipt", scene.completed[0])

    assert "✓ valid, not anchored yet" in text
    assert "○ nothing to check the anchor" in text
    assert "Not yet: it waits for the next settlement batch." in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"units": 999_999}, "the platform's signature does not match the receipt"),
        ({"fee": {"amount": "0", "asset": "AIT"}}, "the platform's signature does not match the receipt"),
        ({"version": "2"}, "not a receipt: unknown version"),
    ],
)
def test_a_receipt_that_was_changed_is_invalid_with_the_reason(console, scene, change, reason):
    receipt = Receipt.objects.get(pk=scene.completed[0])
    Receipt.objects.filter(pk=receipt.pk).update(document=receipt.document | change)

    assert f"✗ invalid: {reason}" in page(console, "receipt", receipt.pk).replace("&#x27;", "'")
    assert f"✗ invalid: {reason}" in page(console, "job", receipt.pk).replace("&#x27;", "'")


def test_a_receipt_signed_by_a_foreign_key_is_invalid(console, scene, monkeypatch):
    """The platform's keys are those of this installation, not whatever the document names."""
    monkeypatch.setattr(receipts, "network_addresses", lambda: ("0x" + "00" * 20,))

    text = page(console, "receipt", scene.completed[0]).replace("&#x27;", "'")
    assert "✗ invalid: the receipt was signed by a key that is not the platform's" in text


def test_without_the_platforms_key_nothing_is_called_verified(console, scene, keys_dir):
    receipts.platform_signer.cache_clear()
    try:
        text = page(console, "receipt", scene.completed[0])
    finally:
        receipts.platform_signer.cache_clear()

    assert "○ not verified:" in text
    assert "✓" not in text
