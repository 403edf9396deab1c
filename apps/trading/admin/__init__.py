from apps.trading.admin import chain, ledger, payments, settlement, streams  # noqa: F401 - registers their pages
