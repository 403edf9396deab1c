from django.apps import AppConfig


class MarketplaceConfig(AppConfig):
    name = "apps.marketplace"
    label = "marketplace"
    verbose_name = "Marketplace: offers"

    def ready(self) -> None:
        from aitbc.core import ports
        from aitbc.webhooks import events
        from apps.marketplace import receivers  # noqa: F401 - registers what follows the miners
        from apps.marketplace.models import Order
        from apps.marketplace.selectors import terms

        events.declare("jobs:read", *(f"order.{state}" for state in Order.State))
        events.declare("jobs:read", "auction.closed", "auction.awarded", "auction.void")
        ports.provide("offer.terms", terms.offer_terms)
        ports.provide("artifact.licences", terms.licensed)
