"""What the platform wants of the chain and has seen on it."""

from pathlib import Path
from typing import Any

from django.contrib import admin
from django.db import connections
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.chain.models import Block, Deployment, FinalEvent, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.core import show
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
    list_display = (
        "id_shown",
        "kind",
        "state_shown",
        "key_short",
        "nonce",
        "tx_short",
        "block_number",
        "created_at",
    )
    list_filter = ("state",)
    search_fields = ("id", "business_key", "tx_hash")
    search_help_text = "Id, business key or transaction"
    fieldsets = (
        (None, {"fields": (("kind", "state_shown"), ("business_key", "network"), "id")}),
        ("Call", {"fields": (("contract", "function", "role"), "args_shown", "payload_shown")}),
        ("Transaction", {"fields": ("tx_shown", ("sender", "nonce"), ("block_number", "gas_used"), "error")}),
        ("Times", {"fields": (("created_at", "updated_at"),)}),
    )

    @display(description="Id")
    def id_shown(self, intent: Intent) -> str:
        return show.short(intent.pk)

    @display(description="State", ordering="state")
    def state_shown(self, intent: Intent) -> str:
        return show.state(intent.state, _STATES)

    @display(description="Business key", ordering="business_key")
    def key_short(self, intent: Intent) -> str:
        return show.short(intent.business_key, head=24)

    @display(description="Transaction")
    def tx_short(self, intent: Intent) -> str:
        return show.short(intent.tx_hash)

    @display(description="Transaction")
    def tx_shown(self, intent: Intent) -> str:
        return show.code(intent.tx_hash)

    @display(description="Arguments")
    def args_shown(self, intent: Intent) -> str:
        return show.document(intent.args)

    @display(description="Hash of the payload")
    def payload_shown(self, intent: Intent) -> str:
        return show.code(intent.payload_hash)


@admin.register(NetworkStatus)
class NetworkStatusAdmin(ReadOnlyAdmin):
    icon = "lan"
    list_display = ("network", "chain_id", "height", "final_height", "halted", "problem", "updated_at")
    search_fields = ("network",)
    search_help_text = "Network"
    ordering = ("network",)
    fieldsets = (
        (None, {"fields": (("network", "chain_id"), ("height", "final_height"), "final_shown")}),
        ("Worker", {"fields": (("epoch", "event_cursor"), "halted", "problem", "updated_at")}),
    )

    @display(description="Final block")
    def final_shown(self, status: NetworkStatus) -> str:
        return show.code(status.final_hash)


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    icon = "deployed_code"
    list_display = ("name", "network", "address", "block_number", "created_at")
    search_fields = ("name", "address", "tx_hash")
    search_help_text = "Name, address or transaction"
    ordering = ("network", "name")
    fields = (("name", "network"), "address", "tx_shown", ("block_number", "created_at"))

    @display(description="Transaction")
    def tx_shown(self, deployment: Deployment) -> str:
        return show.code(deployment.tx_hash)


@admin.register(FinalEvent)
class FinalEventAdmin(ReadOnlyAdmin):
    icon = "done_all"
    list_display = ("id", "contract", "name", "network", "block_number", "tx_short", "block_time")
    search_fields = ("id", "tx_hash")
    search_help_text = "Number or transaction"
    fieldsets = (
        (None, {"fields": (("contract", "name", "network"), "args_shown")}),
        (
            "Where",
            {"fields": ("tx_shown", ("ordinal", "log_index"), ("block_number", "block_time"), "block_shown")},
        ),
    )

    @display(description="Transaction")
    def tx_short(self, event: FinalEvent) -> str:
        return show.short(event.tx_hash)

    @display(description="Transaction")
    def tx_shown(self, event: FinalEvent) -> str:
        return show.code(event.tx_hash)

    @display(description="Block hash")
    def block_shown(self, event: FinalEvent) -> str:
        return show.code(event.block_hash)

    @display(description="Arguments")
    def args_shown(self, event: FinalEvent) -> str:
        return show.document(event.args)


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
    search_help_text = "Transaction or intent"
    ordering = ("-id",)
    fields = (
        "tx_shown",
        ("sender", "nonce", "attempt"),
        ("gas", "max_fee"),
        ("epoch", "created_at"),
        "intent",
    )

    @display(description="Transaction")
    def tx_short(self, signed: SignedTransaction) -> str:
        return show.short(signed.tx_hash)

    @display(description="Transaction")
    def tx_shown(self, signed: SignedTransaction) -> str:
        return show.code(signed.tx_hash)

    @display(description="Intent")
    def intent(self, signed: SignedTransaction) -> str:
        return show.link("chain_intent", signed.intent_id)


@admin.register(Block)
class BlockAdmin(ChainFileAdmin):
    icon = "view_in_ar"
    list_display = ("number", "hash", "timestamp")
    search_fields = ("number",)
    search_help_text = "Number"
    ordering = ("-number",)
    fields = (("number", "timestamp"), "hash", "parent")


@admin.register(Log)
class LogAdmin(ChainFileAdmin):
    icon = "list_alt"
    list_display = ("id", "block_id", "log_index", "address", "tx_short")
    search_fields = ("block__number",)
    search_help_text = "Block"
    ordering = ("-id",)
    fields = (("block_id", "log_index", "ordinal"), "tx_shown", "address", "topics_shown", "data_shown")

    @display(description="Transaction")
    def tx_short(self, log: Log) -> str:
        return show.short(log.tx_hash)

    @display(description="Transaction")
    def tx_shown(self, log: Log) -> str:
        return show.code(log.tx_hash)

    @display(description="Topics")
    def topics_shown(self, log: Log) -> str:
        return show.document(log.topics)

    @display(description="Data")
    def data_shown(self, log: Log) -> str:
        return show.block(log.data)
