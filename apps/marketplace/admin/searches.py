"""What people search for again and again, and what they were told of."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column
from aitbc.core.pages import ReadOnlyAdmin
from apps.marketplace.models import Search, SearchMatch


@admin.register(Search)
class SearchAdmin(ReadOnlyAdmin):
    icon = "saved_search"
    list_display = ("name", "owner_shown", "q", "alert", "created_at")
    list_select_related = ("owner",)
    list_filter = ("alert",)
    search_fields = ("id", "owner__email", "name")
    fields = (("name", "owner_shown"), "q", ("alert", "created_at"), "id")

    owner_shown = column("Owner", "owner", show.to)


@admin.register(SearchMatch)
class SearchMatchAdmin(ReadOnlyAdmin):
    icon = "notifications"
    list_display = ("id", "search_shown", "offer_shown", "at")
    list_select_related = ("search", "offer")
    search_fields = ("search__id", "offer__id")
    fields = (("search_shown", "offer_shown"), "at")

    search_shown = column("Search", "search", show.to)
    offer_shown = column("Offer", "offer", show.to)
