"""What every page of the console shares: exact search, cheap counts, and actions that report refusals.

Money and state have one writer each, a service; a page that could write them would be a second one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, get_fields_from_path, unquote
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import EmailField, Field, Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action

from aitbc.core import show
from aitbc.core.columns import column
from aitbc.core.errors import DomainError

COUNT_AT_MOST = 10_000
MOST_BEHIND = 1000


def once(method: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a field of a row's page once: its template asks for it several times."""

    @wraps(method)
    def shown(*args: Any) -> Any:
        kept = args[-1].__dict__.setdefault("_shown", {})
        if method.__qualname__ not in kept:
            kept[method.__qualname__] = method(*args)
        return kept[method.__qualname__]

    return shown


class EstimatingPaginator(Paginator[Any]):
    """Counts exactly up to `COUNT_AT_MOST` rows; beyond, asks the planner's statistics, not the table."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        # By primary key alone: what a list computes per row is not computed for rows that are only counted.
        exact = rows.order_by().values("pk")[: COUNT_AT_MOST + 1].count()
        if exact <= COUNT_AT_MOST or rows.query.where or connections[rows.db].vendor != "postgresql":
            return exact
        return max(exact, _estimate(rows))

    @cached_property
    def num_pages(self) -> int:
        """Pages up to `COUNT_AT_MOST` rows: a later one reads all rows before it. Search instead."""
        return min(super().num_pages, max(1, COUNT_AT_MOST // self.per_page))


def _estimate(rows: QuerySet[Any]) -> int:
    with connections[rows.db].cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", [rows.model._meta.db_table]
        )
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def never(page: Any, request: HttpRequest, obj: Model | None = None) -> bool:
    """A permission that nobody has."""
    return False


class Unwritable:
    """No add, change or delete through a form, whoever asks; viewing follows the user's permissions."""

    has_add_permission = has_change_permission = has_delete_permission = never


class ExactSearch:
    """Search by whole values of indexed columns; a term that a column cannot hold is not looked for there.

    What lies behind a foreign key is resolved first, so that the list itself is asked by columns of its
    own table: PostgreSQL uses no index for an OR that spans two.
    """

    search_fields: Sequence[str] = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or not self.search_fields:
            return queryset, False
        wanted = Q()
        for path in self.search_fields:
            wanted |= _condition(queryset.model, path, term)
        return (queryset.filter(wanted) if wanted else queryset.none()), False


def _condition(model: type[Model], path: str, term: str) -> Q:
    """`path` (such as `client__email`) equals `term`, in columns of `model` alone; empty where it cannot."""
    field: Any = get_fields_from_path(model, path)[-1]
    if not _holds(field, term):
        return Q()
    value = term.lower() if isinstance(field, EmailField) else term
    key, _, rest = path.partition("__")
    related: Any = model._meta.get_field(key).related_model
    if related is None or rest in ("", related._meta.pk.name):
        return Q(**{path: value})
    behind = list(related._default_manager.filter(**{rest: value}).values_list("pk", flat=True)[:MOST_BEHIND])
    return Q(**{f"{key}__in": behind}) if behind else Q()


def _holds(field: Field[Any, Any], term: str) -> bool:
    if isinstance(field, EmailField) and "@" not in term:
        return False
    try:
        field.get_db_prep_value(term, connections["default"])
    except (ValidationError, ValueError, TypeError):
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """What an operator may do to a row: a dialog on its page asks first; the list takes several at once."""

    name: str
    label: str
    icon: str
    question: str
    effect: str
    done: str
    service: Callable[[Any, Any, Mapping[str, Any]], object]  # of the row, the operator, the form's values
    is_apt: Callable[[Any], bool]  # whether its page offers it; the service has the last word
    confirm: str = ""  # the dialog's button, where it says another word than `label`
    form: type | None = None
    on_list: bool = True

    def of_page(self) -> Any:
        dialog = {
            "title": self.question,
            "description": self.effect,
            "form_class": self.form,
            "form_submit_text": self.confirm or self.label,
        }

        @action(description=self.label, permissions=["operate"], icon=self.icon, dialog=dialog)
        def run(page: "ConsoleAdmin", request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
            return page.operate_one(request, object_id, self, form.cleaned_data)

        return run

    def of_list(self) -> Any:
        @action(description=self.label, permissions=["operate"])
        def run(page: "ConsoleAdmin", request: HttpRequest, queryset: QuerySet[Any]) -> None:
            page.operate(request, queryset, self, {})

        return run


class SetFilter(admin.SimpleListFilter):
    """Rows in which `column` is still empty, and those in which it is set, in the words of `answers`."""

    column: str
    answers: tuple[str, str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(zip(("no", "yes"), self.answers, strict=True))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {f"{self.column}__isnull": self.value() == "no"}
        return queryset if self.value() is None else queryset.filter(**wanted)


class ConsoleAdmin(ExactSearch, ModelAdmin):
    """The look and the limits that editable pages share with the read-only ones."""

    paginator = EstimatingPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    list_disable_select_all = True
    list_fullwidth = True
    compressed_fields = True
    icon = "table_rows"
    sections: Mapping[str | None, Sequence[Any]] = {}  # the fields of a row's page under their titles
    operations: tuple[Operation, ...] = ()

    def __init_subclass__(cls) -> None:
        """Say it as Django does. An operation is `name` on the list, and `name_this` on the page of a row."""
        super().__init_subclass__()
        if cls.sections:
            cls.fieldsets = tuple((title, {"fields": fields}) for title, fields in cls.sections.items())
        if not cls.search_help_text:
            cls.search_help_text = ", ".join(cls.search_fields).replace("__", "'s ").replace("_", " ").capitalize()
        for operation in cls.operations:
            setattr(cls, operation.name, operation.of_list())
            setattr(cls, f"{operation.name}_this", operation.of_page())
        cls.actions = tuple(o.name for o in cls.operations if o.on_list)
        cls.actions_detail = tuple(f"{o.name}_this" for o in cls.operations)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may run this page's actions: who may change the model, were it writable by hand."""
        user: Any = request.user
        return bool(user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        actions = super().get_actions_detail(request, object_id)
        row = self.get_object(request, unquote(object_id)) if actions else None
        apt = {f"{o.name}_this" for o in self.operations if row is not None and o.is_apt(row)}
        return [action for action in actions if action.path in apt]

    def operate(
        self, request: HttpRequest, chosen: Iterable[Any], operation: Operation, fields: Mapping[str, Any]
    ) -> None:
        """Call the service with each row and log it in its history; a refusal is shown, the others go on."""
        succeeded = 0
        for row in chosen:
            try:
                operation.service(row, request.user, fields)
            except DomainError as error:
                self.message_user(request, f"{row}: {error.message} ({error.code})", messages.ERROR)
            else:
                succeeded += 1
                self.log_change(request, row, operation.done)
        if succeeded:
            self.message_user(request, f"{operation.done}: {succeeded}", messages.SUCCESS)

    def operate_one(
        self, request: HttpRequest, object_id: str, operation: Operation, fields: Mapping[str, Any]
    ) -> HttpResponse:
        """The same for the row of a page, answered as the confirming dialog (htmx) expects it."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        self.operate(request, [row], operation, fields)
        url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[object_id])
        return HttpResponse(status=204, headers={"HX-Redirect": url})


class ReadOnlyAdmin(Unwritable, ConsoleAdmin):
    """Rows that people look at and only services write."""

    ident = column("Id", "pk", show.short)
    tx = column("Transaction", "tx_hash", show.code)
    tx_short = column("Transaction", "tx_hash", show.short)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return tuple(flatten_fieldsets(self.get_fieldsets(request, obj)))


class ReadOnlyInline(Unwritable, TabularInline):
    extra = 0
    hide_title = True
    can_delete = False
    show_change_link = False
    select_related: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related(*self.select_related) if self.select_related else rows
