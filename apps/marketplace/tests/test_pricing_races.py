"""Strategies and sellers that change the same prices at once, each on a connection of its own."""

from itertools import pairwise

from aitbc.core import db
from aitbc.core.testing import cast
from apps.marketplace import tasks
from apps.marketplace.models import Offer
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.test_strategies import ait, strategy_of


def test_workers_at_once_apply_each_strategy_once_and_lose_no_sellers_price(committed_db, in_threads):
    sellers = [cast.seller(f"seller-{n}", device=card(), price="0.001") for n in range(4)]
    offers = [read(seller.post(OFFERS, {"price": price("0.004")}), 201) for seller in sellers]
    for seller, offer in zip(sellers, offers, strict=True):
        strategy_of(seller, offer, strategy="cost_plus", cost=ait("0.0041"))

    def act(n: int):
        if n < 4:
            return tasks.apply_strategies()
        own = sellers[n - 4].patch(f"{OFFERS}/{offers[n - 4]['id']}", {"price": price("0.005")})
        return own.status_code

    done = in_threads(act, 8)

    assert done[4:] == [200] * 4
    assert not any("stuck" in counts for counts in done[:4])
    for offer in offers:
        history = db.rows(
            "SELECT before, after, preset FROM marketplace_price_change WHERE offer_id = %s ORDER BY id", (offer["id"],)
        )
        own = next(row for row in history if row[1] == 5 * 10**15)
        assert own[2] is None
        assert [row[2] for row in history].count("cost_plus") == 1
        for earlier, later in pairwise(history):
            assert later[0] == earlier[1]
        assert Offer.objects.get(pk=offer["id"]).price == history[-1][1]
