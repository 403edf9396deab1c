"""The pages of the ledger's hash chain, whose blocks hold only what is committed."""

from django.urls import reverse

from aitbc.accounts.models import User
from apps.trading.models import JournalBlock
from apps.trading.tests.books import account, sealed


def test_the_journals_blocks_have_their_pages(committed_db, client):
    client.force_login(User.objects.create_superuser("auditor@example.com"))
    account(10)
    assert sealed() == 1
    head = JournalBlock.objects.get().head

    listed = client.get(reverse("admin:trading_journalblock_changelist"))
    shown = client.get(reverse("admin:trading_journalblock_change", args=[1]))

    assert (listed.status_code, shown.status_code) == (200, 200)
    assert head[:10] in listed.content.decode()
    assert head in shown.content.decode()
    for page, args in (("add", []), ("change", [1]), ("delete", [1])):
        path = reverse(f"admin:trading_journalblock_{page}", args=args)
        assert client.post(path, {"head": "0x", "post": "yes"}).status_code == 403
    assert JournalBlock.objects.get().head == head
