from django.apps import AppConfig


class TradingConfig(AppConfig):
    name = "apps.trading"
    label = "trading"
    verbose_name = "Trading: ledger, payments, settlement"

    def ready(self) -> None:
        from aitbc.core import ports
        from apps.trading import receivers
        from apps.trading.services import assets, journal

        ports.subscribe("seed", assets.seed)
        ports.subscribe("journal.seal", journal.seal)
        receivers.register()
