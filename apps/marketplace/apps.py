from django.apps import AppConfig


class MarketplaceConfig(AppConfig):
    name = "apps.marketplace"
    label = "marketplace"
    verbose_name = "Marketplace: offers"

    def ready(self) -> None:
        from aitbc.core import ports
        from apps.marketplace import receivers  # noqa: F401 - registers what follows the miners
        from apps.marketplace.selectors import terms
        from apps.marketplace.services import offers

        ports.subscribe("seed", offers.seed)
        ports.provide("offer.terms", terms.offer_terms)
