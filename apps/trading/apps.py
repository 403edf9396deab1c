from django.apps import AppConfig


class TradingConfig(AppConfig):
    name = "apps.trading"
    label = "trading"
    verbose_name = "Trading: ledger, payments, settlement"

    def ready(self) -> None:
        from aitbc.core import ports
        from aitbc.webhooks import events
        from apps.trading import receivers
        from apps.trading.models import Payment, Withdrawal
        from apps.trading.services import assets, journal

        ports.subscribe("seed", assets.seed)
        ports.subscribe("journal.seal", journal.seal)
        receivers.register()
        payments = [f"payment.{state}" for state in Payment.State if state != Payment.State.ESCROWED]
        withdrawals = [f"withdrawal.{state}" for state in Withdrawal.State]
        others = ("deposit.credited", "payout.claimable", "payout.claimed")
        events.declare("money:read", *payments, *withdrawals, *others)
