from django.apps import AppConfig


class MarketplaceConfig(AppConfig):
    name = "apps.marketplace"
    label = "marketplace"
    verbose_name = "Marketplace"

    def ready(self) -> None:
        from aitbc.core import ports
        from aitbc.webhooks import events
        from apps.marketplace import receivers  # noqa: F401 - registers what follows the miners
        from apps.marketplace.models import Order
        from apps.marketplace.selectors import terms
        from apps.marketplace.services import offers
        from apps.trading.services import audit

        audit.RULES["order_agrees_with_its_money"] = "SELECT * FROM audit_orders()"
        events.declare("jobs:read", "search.matched", *(f"order.{state}" for state in Order.State))
        ports.subscribe("seed", offers.seed)
        events.declare("jobs:read", "auction.closed", "auction.awarded", "auction.void")
        ports.provide("offer.terms", terms.offer_terms)
        ports.provide("artifact.licences", terms.licensed)
