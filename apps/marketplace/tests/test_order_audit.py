"""The ledger's audit finds an order that does not agree with its money."""

import psycopg
import pytest
from django.conf import settings

from aitbc.core import db as database
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.marketplace.tests.market import act, bond, run, running, terms
from apps.trading.services.audit import audit

BREAK = """
CREATE OR REPLACE FUNCTION test_break(p_what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET session_replication_role = replica SET search_path = public AS $$ BEGIN EXECUTE p_what; END $$"""
DEFECTS = (
    "UPDATE marketplace_order SET credit = NULL",
    "UPDATE marketplace_order SET max_credit = max_credit + 1",
    "UPDATE marketplace_order SET paid = paid + 1, refunded = refunded - 1",
    "UPDATE trading_transfer SET state = 'pending' WHERE id = (SELECT hold FROM marketplace_order)",
    "UPDATE marketplace_order SET stream = id",
    "UPDATE trading_stream SET keeper = NULL",
)


def found():
    return {finding.rule for finding in audit()}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(alice, mike, offer_of, defect):
    with psycopg.connect(settings.DATABASE_OWNER_URL, dbname=settings.DATABASES["owner"]["NAME"]) as owner:
        owner.execute(BREAK)
        owner.execute(f'GRANT EXECUTE ON FUNCTION test_break TO "{settings.DATABASES["default"]["USER"]}"')
    offer = offer_of(mike)
    terms(offer, sla_bps=9900)
    cast.fund(mike.id, AIT)
    bond(mike, AIT // 2)
    placed = running(alice, mike, offer_id=offer["id"], seconds=600)
    act(mike, placed, "cancel")
    assert run() == {"credited": 1}
    assert "order_agrees_with_its_money" not in found()

    database.rows("SELECT test_break(%s)", (defect,))

    assert "order_agrees_with_its_money" in found()
