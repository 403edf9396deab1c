from apps.marketplace.admin import offers, orders, pricing, reputation  # noqa: F401 - registers their pages
