"""People, their keys, and the governed parameters."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from aitbc.accounts import keys, parameters
from aitbc.accounts.models import ApiKey, AuditEvent, Parameter, ParameterChange, User
from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.errors import Invalid
from aitbc.core.pages import ConsoleAdmin, Operation, ReadOnlyAdmin, ReadOnlyInline, never

admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ConsoleAdmin):  # type: ignore[misc]  # unfold has no types
    icon = "group"
    search_fields = ("name",)  # type: ignore[misc]


class LowerCaseAddress(forms.ModelForm):
    """Addresses are kept in lower case, so that one person is one user."""

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"].lower())


class NewUserForm(LowerCaseAddress, UserCreationForm):
    class Meta:
        model = User
        fields = ("email",)
        error_messages = {"email": {"unique": "There is a user with this address already."}}


class UserForm(LowerCaseAddress, UserChangeForm):
    """Every field; the page says which."""


VALIDITIES = {"valid": "success", "revoked": "danger"}


def _validity(key: ApiKey) -> str:
    return "revoked" if key.revoked_at else "valid"


REVOKE = Operation(
    name="revoke",
    label="Revoke",
    icon="key_off",
    question="Revoke this key?",
    effect="It stops working at once and cannot be made valid again.",
    done="Keys revoked",
    service=lambda key, *_: keys.revoke_key(key_id=key.pk),
    is_apt=lambda key: key.revoked_at is None,
)


class KeysOfUser(ReadOnlyInline):
    model = ApiKey
    fields = readonly_fields = ("key", "name", "grants", "state", "last_used_at")
    verbose_name_plural = "API keys"

    key = column("Key", show.to)
    grants = column("Scopes", "scopes", ", ".join)
    state = column("State", _validity)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ConsoleAdmin):  # type: ignore[misc]  # unfold has no types
    """Users are never deleted: money, jobs and receipts name them. An inactive one can do nothing."""

    icon = "person"
    form, add_form, change_password_form = UserForm, NewUserForm, AdminPasswordChangeForm
    list_display = ("email", "name", "role_shown", "is_active", "is_staff", "created_at", "last_login")
    list_filter = ("role", "is_active", "is_staff")
    search_fields = ("id", "email")  # type: ignore[misc]
    ordering = ("-id",)
    readonly_fields = ("id", "created_at", "last_login")
    filter_horizontal = ("groups", "user_permissions")
    inlines = (KeysOfUser,)
    sections = {
        None: (("email", "name"), ("role", "is_active"), "password", "id"),
        "Console": (("is_staff", "is_superuser"), "groups", "user_permissions"),
        "Times": (("created_at", "last_login"),),
    }
    add_fieldsets = ((None, {"fields": ("email", "password1", "password2")}),)

    role_shown = state({"operator": "primary", "miner": "info"}, "role", "Role")

    has_delete_permission = never

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        return self.inlines if obj else ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Only a superuser hands out rights: others could give themselves every one of them."""
        user: Any = request.user
        rights = () if user.is_superuser else ("is_staff", "is_superuser", "groups", "user_permissions")
        return (*self.readonly_fields, *rights)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    icon = "key"
    list_display = ("__str__", "name", "owner", "grants", "state", "created_at", "expires_at", "last_used_at")
    list_select_related = ("user",)
    search_fields = ("id", "prefix", "user__email")
    operations = (REVOKE,)
    sections = {
        None: (("name", "prefix"), ("owner", "state"), "grants", "id"),
        "Times": (("created_at", "expires_at"), ("last_used_at", "revoked_at")),
    }

    owner = column("Owner", "user", show.to, ordering="user")
    grants = column("Scopes", "scopes", ", ".join)
    state = column("State", lambda key: show.state(_validity(key), VALIDITIES))


class ParameterForm(forms.ModelForm):
    class Meta:
        model = Parameter
        fields = ("value",)

    def clean_value(self) -> int:
        """The bounds of `parameters.change`, said beside the field."""
        value = int(self.cleaned_data["value"])
        try:
            parameters.require_within_bounds(self.instance, value)
        except Invalid as error:
            raise ValidationError(error.message) from error
        return value


class ChangesOfParameter(ReadOnlyInline):
    model = ParameterChange
    fields = readonly_fields = ("changed_at", "old_value", "new_value", "by")
    verbose_name_plural = "History"
    per_page = 20
    select_related = ("changed_by",)

    by = column("By", lambda change: show.to(change.changed_by) if change.changed_by_id else "the platform")


@admin.register(Parameter)
class ParameterAdmin(ConsoleAdmin):
    """Changed through `parameters.change` alone, which keeps who changed what."""

    icon = "tune"
    form = ParameterForm
    list_display = ("name", "value_shown", "unit", "bounds", "description", "updated_at")
    search_fields = ("name",)
    list_per_page = 200
    inlines = (ChangesOfParameter,)
    readonly_fields = ("name", "unit", "bounds", "description", "updated_at")
    sections = {None: ("description", ("value", "unit"), "bounds"), "Last change": ("updated_at",)}

    has_add_permission = has_delete_permission = never
    bounds = column("Allowed", lambda parameter: f"{parameter.minimum:,} to {parameter.maximum:,}")
    value_shown = column("Value", "value", "{:,}".format, ordering="value")

    def save_model(self, request: HttpRequest, obj: Parameter, form: ParameterForm, change: bool) -> None:
        if form.has_changed():
            user: Any = request.user
            parameters.change(name=obj.pk, value=form.cleaned_data["value"], by=user)


@admin.register(ParameterChange)
class ParameterChangeAdmin(ReadOnlyAdmin):
    icon = "history"
    list_display = ("parameter", "old_value", "new_value", "changed_by", "changed_at")
    list_select_related = ("parameter", "changed_by")
    search_fields = ("parameter__name", "changed_by__email")
    fields = ("parameter", ("old_value", "new_value"), ("changed_by", "changed_at"))
    ordering = ("-id",)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    icon = "policy"
    list_display = ("number", "at", "action", "actor", "subject", "address")
    list_filter = ("action",)
    search_fields = ("number", "subject", "actor")
    sections = {
        None: (("number", "at"), ("action", "subject"), ("actor", "address"), "request_id"),
        "Change": ("before_shown", "after_shown"),
        "Seal": ("head_shown",),
    }

    before_shown = column("Before", "before", show.document)
    after_shown = column("After", "after", show.document)
    head_shown = column("Head of the chain", "head", show.code)
