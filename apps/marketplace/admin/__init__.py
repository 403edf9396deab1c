from apps.marketplace.admin import offers as offers
from apps.marketplace.admin import orders as orders
from apps.marketplace.admin import reputation as reputation
