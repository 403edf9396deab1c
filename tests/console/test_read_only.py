"""No form of the console writes money or state; it writes what operators may, through the services."""

import pytest
from django.contrib import admin
from django.urls import reverse

from aitbc.accounts.models import Parameter, ParameterChange, User
from aitbc.core.pages import ReadOnlyAdmin
from apps.trading.models import Account, Entry, JournalBlock, Payment, Transfer

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def url(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def read_only():
    """All but the journal's blocks, which hold only what is committed: see test_journal_page.py."""
    pages = admin.site._registry.items()
    return [m for m, page in pages if isinstance(page, ReadOnlyAdmin) and m is not JournalBlock]


def test_money_and_state_are_read_only_pages():
    names = {model._meta.label for model in read_only()}

    assert {
        "trading.Account", "trading.Transfer", "trading.Entry", "trading.Payment", "trading.SettlementBatch",
        "trading.Deposit", "trading.PayoutBatch", "trading.PayoutLeaf", "gpu.Job", "gpu.Miner", "gpu.Receipt",
        "marketplace.Offer", "accounts.ApiKey", "chain.Intent",
    } <= names  # fmt: skip


def test_a_read_only_page_takes_no_add_change_or_delete(console, scene):
    for model in read_only():
        row = model._default_manager.first()
        before = model._default_manager.count()
        answers = [
            console.post(url(model, "add"), {}).status_code,
            console.post(url(model, "change", row.pk), {"state": "completed", "amount": "1"}).status_code,
            console.post(url(model, "delete", row.pk), {"post": "yes"}).status_code,
        ]

        assert answers == [403, 403, 403], model._meta.label
        assert model._default_manager.count() == before, model._meta.label


def test_a_read_only_list_offers_no_bulk_delete(console, scene):
    for model in read_only():
        row = model._default_manager.first()
        chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
        console.post(url(model, "changelist"), chosen)

        assert model._default_manager.filter(pk=row.pk).exists(), model._meta.label


def test_the_ledger_is_as_it_was_after_all_of_it(console, scene):
    before = [list(model.objects.order_by("pk").values()) for model in (Account, Transfer, Entry, Payment)]

    for model in (Account, Transfer, Entry, Payment):
        for row in model.objects.all():
            console.post(url(model, "change", row.pk), {"posted": "1", "amount": "1", "state": "posted"})

    after = [list(model.objects.order_by("pk").values()) for model in (Account, Transfer, Entry, Payment)]
    assert after == before


def test_a_parameter_is_changed_with_its_history(console, operator):
    response = console.post(url(Parameter, "change", "fee_bps"), {"value": "300"} | no_rows("changes"))

    assert response.status_code == 302
    change = ParameterChange.objects.get(parameter="fee_bps")
    assert (int(change.old_value), int(change.new_value), change.changed_by) == (250, 300, operator)
    assert int(Parameter.objects.get(pk="fee_bps").value) == 300


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2001", "fee_bps lies between 0 and 2000 basis points"),
        ("-1", "fee_bps lies between 0 and 2000 basis points"),
        ("2.5", "no more than 0 decimal places"),
        ("", "This field is required."),
    ],
)
def test_a_parameter_out_of_bounds_is_an_error_of_the_form(console, value, message):
    response = console.post(url(Parameter, "change", "fee_bps"), {"value": value} | no_rows("changes"))

    assert response.status_code == 200
    assert message in str(response.context["adminform"].form.errors["value"])
    assert int(Parameter.objects.get(pk="fee_bps").value) == 250
    assert not ParameterChange.objects.exists()


def test_saving_a_parameter_unchanged_leaves_no_history(console, db):
    console.post(url(Parameter, "change", "fee_bps"), {"value": "250"} | no_rows("changes"))

    assert not ParameterChange.objects.exists()


def test_parameters_are_neither_added_nor_deleted(console, db):
    assert console.post(url(Parameter, "add"), {"name": "x", "value": "1"}).status_code == 403
    assert console.post(url(Parameter, "delete", "fee_bps"), {"post": "yes"}).status_code == 403
    assert Parameter.objects.filter(pk="fee_bps").exists()


def test_a_user_is_made_with_a_lower_case_address_and_a_hashed_password(console, db):
    password = "correct horse battery"
    body = {"email": "Carol@Example.com", "password1": password, "password2": password, "usable_password": "true"}
    response = console.post(url(User, "add"), body)

    assert response.status_code == 302, response.context["errors"]
    carol = User.objects.get(email="carol@example.com")
    assert carol.check_password(password)
    assert (carol.role, carol.is_staff, carol.is_superuser) == ("client", False, False)


def test_two_users_never_share_an_address(console, operator):
    password = "correct horse battery"
    body = {"email": "OPERATOR@example.com", "password1": password, "password2": password, "usable_password": "true"}
    response = console.post(url(User, "add"), body)

    assert response.status_code == 200
    assert "There is a user with this address already." in response.content.decode()
    assert User.objects.count() == 1


def test_users_are_never_deleted(console, operator):
    assert console.post(url(User, "delete", operator.pk), {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=operator.pk).exists()


def test_staff_cannot_give_themselves_rights(client, db):
    from django.contrib.auth.models import Permission

    support = User.objects.create_user("support@example.com", is_staff=True)
    support.user_permissions.set(Permission.objects.filter(codename__in=("change_user", "view_user")))
    client.force_login(support)
    body = {"email": support.email, "name": "Support", "role": "operator", "is_active": "on", "is_superuser": "on"}
    response = client.post(url(User, "change", support.pk), body | no_rows("api_keys"))

    support.refresh_from_db()
    assert response.status_code == 302
    assert (support.name, support.is_superuser) == ("Support", False)


def no_rows(prefix):
    """The management form of an inline that posts nothing."""
    return {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
