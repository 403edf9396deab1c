from apps.marketplace.admin import offers as offers
