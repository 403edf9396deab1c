"""Composition root of the machine API at /v1."""

from django.http import HttpRequest, HttpResponse

from aitbc.core.http import as_domain_error, problem_response, unexpected
from aitbc.core.parser import OrjsonParser
from aitbc.core.schema import MachineApi
from aitbc.webhooks import api as webhooks
from apps.gpu.api import artifacts, devices, disputes, evidence, jobs, miners, receipts, trust, uploads
from apps.marketplace.api import auctions, licences, offers, orders, pricing, reputation, searches
from apps.trading.api import accounts, deposits, payments, payouts, settlements, streams, withdrawals

api = MachineApi(
    title="AITBC: machine API",
    version="1.0.0",
    description="Jobs, miners, receipts, offers, money, webhooks. Errors are problem documents (RFC 9457).",
    parser=OrjsonParser(),
    docs_url=None,
    openapi_url="/openapi.json",
)
for prefix, router in (
    ("", jobs.router),
    ("", evidence.router),
    ("", receipts.router),
    ("", trust.router),
    ("/artifacts", artifacts.router),
    ("/uploads", uploads.router),
    ("/miners", miners.router),
    ("", devices.router),
    ("/marketplace", offers.router),
    ("/marketplace", orders.router),
    ("/marketplace", auctions.router),
    ("/miners", orders.miners),
    ("/bonds", orders.bonds),
    ("/marketplace", licences.router),
    ("/disputes", disputes.router),
    ("/reputation", reputation.router),
    ("/marketplace", pricing.router),
    ("/regions", pricing.regions),
    ("/marketplace/searches", searches.router),
    ("", accounts.router),
    ("", payments.router),
    ("", deposits.router),
    ("", settlements.router),
    ("/streams", streams.router),
    ("/withdrawals", withdrawals.router),
    ("/payouts", payouts.router),
    ("/webhooks", webhooks.router),
):
    api.add_router(prefix, router)


@api.exception_handler(Exception)
def on_error(request: HttpRequest, error: Exception) -> HttpResponse:
    known = as_domain_error(error)
    return problem_response(request, known) if known else unexpected(request, error)
