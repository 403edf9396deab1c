"""Governed parameters: the one list of what exists, with defaults and bounds."""

from dataclasses import asdict, dataclass

from django.db import transaction

from aitbc.accounts.models import Parameter, ParameterChange, User
from aitbc.core import db
from aitbc.core.errors import Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    default: int
    minimum: int
    maximum: int
    unit: str
    description: str


DEFINITIONS = (
    Definition("fee_bps", 250, 0, 2000, "basis points", "Platform fee inside a job's total."),
    Definition("lease_seconds", 60, 5, 3600, "seconds", "How long a lease lives without a heartbeat."),
    Definition("max_attempts", 3, 1, 10, "attempts", "How often a job is tried before it fails."),
    Definition("start_deadline_seconds", 120, 5, 3600, "seconds", "A leased job not started by then is requeued."),
    Definition("maturing_seconds", 600, 0, 2_592_000, "seconds", "From completion until an earning is available."),
    Definition("challenge_seconds", 20, 1, 120, "seconds", "Work that a hardware challenge asks for."),
    Definition("reliability_half_life_days", 14, 1, 365, "days", "By then a day counts half in a miner's score."),
    Definition("challenge_owner_hours", 6, 1, 1000, "hours", "Mean time between challenges of an owner's devices."),
    Definition("challenge_region_hours", 48, 1, 1000, "hours", "Mean time between challenges of a whole region."),
    Definition("heartbeat_seconds", 10, 1, 60, "seconds", "How often a miner reports."),
    Definition("suspect_seconds", 30, 2, 600, "seconds", "Silence after which a miner is suspect."),
    Definition("dead_seconds", 60, 4, 1200, "seconds", "Silence after which a miner is dead."),
    Definition("max_job_seconds", 3600, 1, 10_800, "seconds", "Longest run of one job; below the task redelivery."),
    Definition("max_stored_bytes", 50 * 2**30, 1, 2**50, "bytes", "Artifacts one owner may store."),
    Definition("max_queued_jobs", 10_000, 1, 10**7, "jobs", "Jobs that one client may have queued."),
    Definition("max_queued_classes", 100, 1, 10_000, "classes", "Kinds of wishes, by priority, one client may queue."),
    Definition("priority_surcharge_bps", 500, 1, 10_000, "basis points", "Each step of priority adds to the price."),
    Definition("priority_weight_cap", 32, 1, 32, "shares", "Most that priority multiplies a client's share by."),
    Definition("queue_reference_nano", 10**6, 1, 10**15, "AIT/10^9", "Device second's price that shares count by."),
    Definition("max_partial_bytes", 5 * 2**30, 1, 2**50, "bytes", "Uploads one owner may have unfinished."),
    Definition(
        "partial_upload_seconds", 86_400, 60, 2_592_000, "seconds", "An upload nobody continues is dropped then."
    ),
    Definition("max_log_bytes", 2**30, 1, 2**50, "bytes", "Logs of one owner's jobs that are kept."),
    Definition("log_days", 30, 1, 3650, "days", "Logs of finished jobs are kept so long."),
    Definition("telemetry_days", 62, 1, 3650, "days", "Samples of devices are kept so long, then by the month."),
    Definition("rollup_days", 400, 1, 3650, "days", "Windows of 5 minutes and hours of them."),
    Definition("scale_target_percent", 75, 1, 100, "percent", "Utilisation that advice on capacity aims at."),
    Definition("scale_up_percent", 85, 1, 100, "percent", "Above it more slots are advised."),
    Definition("scale_down_percent", 40, 0, 100, "percent", "Below it, with nothing queued, fewer."),
    Definition("scale_queue_factor", 5, 1, 1000, "jobs/slot", "More jobs queued per slot: more slots are advised."),
    Definition("scale_cooldown_seconds", 300, 0, 86_400, "seconds", "Between two pieces of advice for one kind."),
    Definition("settlement_batch", 1000, 1, 100_000, "receipts", "Receipts that close a settlement batch at once."),
    Definition("settlement_seconds", 60, 1, 86_400, "seconds", "Age at which a smaller batch closes."),
    Definition("address_wait_seconds", 86_400, 0, 604_800, "seconds", "A new payout address waits this long."),
    Definition("payout_seconds", 3600, 0, 604_800, "seconds", "Time between two payout batches."),
    Definition("payout_minimum_milli", 1000, 1, 10**12, "AIT/1000", "Smallest payout to one provider."),
    Definition("payout_batch_ait", 10_000, 1, 10**9, "AIT", "Most that a payout batch promises."),
    Definition("claim_sweep_seconds", 0, 0, 604_800, "seconds", "Age at which the platform claims payouts; 0: never."),
    Definition("payout_approval_ait", 10_000, 0, 10_000, "AIT", "A larger payout batch needs a second person."),
    Definition("withdrawal_approval_ait", 1000, 0, 10_000, "AIT", "More per user or address needs a second person."),
    Definition("quote_seconds", 60, 1, 3600, "seconds", "How long a quote holds."),
    Definition("quotes_open", 10, 1, 1000, "quotes", "Open quotes of one client."),
    Definition("quote_deposit_bps", 100, 0, 10_000, "basis points", "Of a quote's total, held until it is accepted."),
    Definition("quote_no_accept_bps", 8000, 0, 10_000, "basis points", "More unaccepted in a day lose their deposits."),
    Definition("auction_award_seconds", 3600, 60, 604_800, "seconds", "By then a client awards, or nobody wins."),
    Definition("order_start_seconds", 120, 5, 3600, "seconds", "An order not started by then is refunded."),
    Definition("cancel_refund_bps", 9000, 0, 10_000, "basis points", "Of the unused time, to a client who cancels."),
    Definition("sla_settle_seconds", 120, 91, 3600, "seconds", "From a lease's end until its SLA is measured."),
    Definition("spot_notice_seconds", 120, 1, 3600, "seconds", "Notice to a spot lease that is outbid."),
    Definition("spot_window_seconds", 300, 1, 86_400, "seconds", "An evictor's first window."),
    Definition("spot_compensation_seconds", 60, 0, 3600, "seconds", "Whose price an evicted lease gets, at most."),
    Definition("withdrawal_daily_ait", 10_000, 0, 10**9, "AIT", "Most that a user, or an address, may get in 24 h."),
    Definition("reputation_to_sell", 500, 0, 1000, "points", "Score from which a provider may list an offer."),
    Definition("reputation_to_buy", 300, 0, 1000, "points", "Score from which a client may buy what is expensive."),
    Definition("reputation_buy_ait", 100, 0, 10**9, "AIT", "From this price on a purchase is expensive."),
    Definition("reexecution_runs", 3, 2, 3, "runs", "At most so often is disputed work done again; two votes decide."),
    Definition("reexecution_seconds", 900, 30, 86_400, "seconds", "A run that nobody took by then is no vote."),
    Definition("appeal_seconds", 86_400, 0, 2_592_000, "seconds", "After a verdict, until an operator may be asked."),
    Definition("dispute_seconds", 259_200, 60, 2_592_000, "seconds", "By then an operator should have decided."),
    Definition("review_auto_approve", 0, 0, 1, "yes or no", "Reviews count without an operator's approval."),
    Definition("sla_search_p95_ms", 500, 1, 60_000, "ms", "Alert: searches are slower."),
    Definition("sla_match_p95_ms", 100, 1, 86_400_000, "ms", "Alert: submission to lease takes longer."),
    Definition("sla_start_p95_ms", 1000, 1, 86_400_000, "ms", "Alert: lease to start takes longer."),
    Definition("sla_error_bps", 500, 0, 10_000, "basis points", "Alert: more attempts fail by provider or platform."),
    Definition("sla_completion_bps", 9000, 0, 10_000, "basis points", "Alert: fewer jobs complete."),
    Definition("sla_uptime_bps", 9500, 0, 10_000, "basis points", "Alert: fewer miners answer."),
    Definition("sla_capacity_bps", 8000, 0, 10_000, "basis points", "Alert: more slots are busy."),
)


def seed(database: str) -> None:
    """Create the parameters that do not exist yet; existing values stay."""
    definitions = [asdict(definition) for definition in DEFINITIONS]
    missing = [Parameter(value=fields.pop("default"), **fields) for fields in definitions]
    Parameter.objects.using(database).bulk_create(missing, ignore_conflicts=True)


def get(name: str) -> int:
    found = db.row("SELECT value::bigint FROM accounts_parameter WHERE name = %s", (name,))
    if found is None:
        raise NotFound("parameter.unknown", f"there is no parameter {name}")
    return int(found[0])


@transaction.atomic
def change(*, name: str, value: int, by: User | None) -> Parameter:
    """Set a parameter within its bounds and keep who changed it, from what, to what."""
    parameter = Parameter.objects.select_for_update().filter(pk=name).first()
    if parameter is None:
        raise NotFound("parameter.unknown", f"there is no parameter {name}")
    require_within_bounds(parameter, value)
    ParameterChange.objects.create(parameter=parameter, old_value=parameter.value, new_value=value, changed_by=by)
    parameter.value = value  # type: ignore[assignment]  # a whole number of the NUMERIC(38,0) column
    parameter.save(update_fields=["value", "updated_at"])
    return parameter


def require_within_bounds(parameter: Parameter, value: int) -> None:
    if not parameter.minimum <= value <= parameter.maximum:
        raise Invalid(
            "parameter.out_of_bounds",
            f"{parameter.name} lies between {parameter.minimum} and {parameter.maximum} {parameter.unit}",
        )
