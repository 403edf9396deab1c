"""What the platform wants of the chain and has seen on it."""

from functools import partial
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.db import connections
from django.http import HttpRequest

from aitbc.chain.models import Block, Deployment, FinalEvent, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import ReadOnlyAdmin

_STATES = {
    "requested": "info",
    "signed": "info",
    "broadcast": "warning",
    "mined": "warning",
    "final": "success",
    "failed": "danger",
}


@admin.register(Intent)
class IntentAdmin(ReadOnlyAdmin):
    icon = "send"
    list_display = ("ident", "kind", "status", "key_short", "nonce", "tx_short", "block_number", "created_at")
    list_filter = ("state",)
    search_fields = ("id", "business_key", "tx_hash")
    sections = {
        None: (("kind", "status"), ("business_key", "network"), "id"),
        "Call": (("contract", "function", "role"), "args_shown", "payload_shown"),
        "Transaction": ("tx", ("sender", "nonce"), ("block_number", "gas_used"), "error"),
        "Times": (("created_at", "updated_at"),),
    }

    status = state(_STATES)
    key_short = column("Business key", "business_key", partial(show.short, head=24), ordering="business_key")
    args_shown = column("Arguments", "args", show.document)
    payload_shown = column("Hash of the payload", "payload_hash", show.code)


@admin.register(NetworkStatus)
class NetworkStatusAdmin(ReadOnlyAdmin):
    icon = "lan"
    list_display = ("network", "chain_id", "height", "final_height", "halted", "problem", "updated_at")
    search_fields = ("network",)
    ordering = ("network",)
    sections = {
        None: (("network", "chain_id"), ("height", "final_height"), "final_shown"),
        "Worker": (("epoch", "event_cursor"), "halted", "problem", "updated_at"),
    }

    final_shown = column("Final block", "final_hash", show.code)


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    icon = "deployed_code"
    list_display = ("name", "network", "address", "block_number", "created_at")
    search_fields = ("name", "address", "tx_hash")
    ordering = ("network", "name")
    fields = (("name", "network"), "address", "tx", ("block_number", "created_at"))


@admin.register(FinalEvent)
class FinalEventAdmin(ReadOnlyAdmin):
    icon = "done_all"
    list_display = ("id", "contract", "name", "network", "block_number", "tx_short", "block_time")
    search_fields = ("id", "tx_hash")
    sections = {
        None: (("contract", "name", "network"), "args_shown"),
        "Where": ("tx", ("ordinal", "log_index"), ("block_number", "block_time"), "block_shown"),
    }

    block_shown = column("Block hash", "block_hash", show.code)
    args_shown = column("Arguments", "args", show.document)


class ChainFileAdmin(ReadOnlyAdmin):
    """These rows lie in a file on the chain worker's host; on any other there is nothing to show."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        there = Path(connections["chain"].settings_dict["NAME"]).is_file()
        return there and super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


@admin.register(SignedTransaction)
class SignedTransactionAdmin(ChainFileAdmin):
    """Without the signed bytes: whoever holds them can broadcast them."""

    icon = "draw"
    list_display = ("tx_short", "sender", "nonce", "attempt", "gas", "max_fee", "epoch", "created_at")
    search_fields = ("tx_hash", "intent_id")
    fields = ("tx", ("sender", "nonce", "attempt"), ("gas", "max_fee"), ("epoch", "created_at"), "intent")

    intent = link("Intent", "chain_intent", "intent_id")


@admin.register(Block)
class BlockAdmin(ChainFileAdmin):
    icon = "view_in_ar"
    list_display = ("number", "hash", "timestamp")
    search_fields = ("number",)
    fields = (("number", "timestamp"), "hash", "parent")


@admin.register(Log)
class LogAdmin(ChainFileAdmin):
    icon = "list_alt"
    list_display = ("id", "block_id", "log_index", "address", "tx_short")
    search_fields = ("block__number",)
    fields = (("block_id", "log_index", "ordinal"), "tx", "address", "topics_shown", "data_shown")

    topics_shown = column("Topics", "topics", show.document)
    data_shown = column("Data", "data", show.block)
