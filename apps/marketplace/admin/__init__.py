from apps.marketplace.admin import offers, pricing  # noqa: F401 - registers their pages
