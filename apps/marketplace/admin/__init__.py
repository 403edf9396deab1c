from apps.marketplace.admin import offers as offers
from apps.marketplace.admin import searches as searches
