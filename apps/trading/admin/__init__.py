from apps.trading.admin import chain, ledger, payments, settlement  # noqa: F401 - registers their pages
