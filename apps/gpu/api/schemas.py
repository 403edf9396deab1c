"""Shapes of the fixed /v1 contract for jobs, miners and receipts; services check what is true."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from ninja import Schema
from pydantic import AwareDatetime, Field

from aitbc.core.schema import Money, MoneyIn, Problem, Strict, Text
from apps.gpu.joblog import REPORT_LINES

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Kind = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_.]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{130}$")]
State = Literal["queued", "leased", "running", "completed", "failed", "canceled", "expired"]


class Constraints(Strict):
    gpu_model: Name | None = None
    min_vram_gb: Annotated[float, Field(gt=0, le=100_000)] | None = None
    cuda: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$")] | None = None
    region: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00]*$")] | None = None
    models: Annotated[list[Name], Field(max_length=50)] = []
    min_reliability: Annotated[float, Field(ge=0, le=1)] | None = None


class JobIn(Strict):
    kind: Kind
    input: dict[str, Any] | None = None
    input_artifact: Sha256 | None = None
    constraints: Constraints = Constraints()
    max_price: MoneyIn | None = Field(None, description="Held in escrow; needed unless an order pays.")
    offer_id: UUID | None = None
    order_id: UUID | None = Field(None, description="Run it on the devices that this order of yours has now, and pays.")
    ttl_seconds: Annotated[int, Field(ge=1, le=604_800)] = 900
    priority: Annotated[int, Field(ge=0, le=10, description="Each step costs a surcharge on the unit price.")] = 0
    id: UUID | None = Field(None, description="Client-made UUID version 7.")
    purpose: Literal["commercial", "research", "education"] = Field("commercial", description="For licensed artifacts.")


class ServiceIn(Strict):
    input: dict[str, Any]
    max_price: MoneyIn | None = Field(None, description="Without it, the price in the catalogue.")


class BatchIn(Strict):
    jobs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100)]


class JobError(Schema):
    code: str
    message: str


class JobPayment(Schema):
    id: UUID
    state: str
    held: Money
    released: Money
    refunded: Money
    fee: Money


class JobOut(Schema):
    id: UUID
    kind: str
    state: State
    priority: int
    created_at: AwareDatetime
    leased_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    expires_at: AwareDatetime
    attempts: int
    miner_id: UUID | None
    offer_id: UUID | None
    order_id: UUID | None
    progress: dict[str, Any] | None = None
    error: JobError | None
    payment: JobPayment | None = Field(description="None where an order pays.")


class JobList(Schema):
    items: list[JobOut]
    next: str | None


class BatchItem(Schema):
    status: int
    job: JobOut | None = None
    problem: Problem | None = None


class BatchOut(Schema):
    items: list[BatchItem]


class ResultOut(Schema):
    job_id: UUID
    output: Any = None
    output_artifact: Sha256 | None = None
    metrics: dict[str, Any]


class RowOut(Schema):
    job_id: UUID
    index: int
    row: list[int]
    leaf: Hash
    proof: list[Hash]
    root: Hash


class ReceiptOut(Schema):
    version: str
    statement: dict[str, Any]
    units: int
    total: Money
    fee: Money
    started_at: str
    finished_at: str
    platform: dict[str, Any]
    miner: dict[str, Any]
    anchor: dict[str, Any] | None
    salt: str | None = Field(None, description="Of the commitments; for the job's parties only.")
    salt_signature: str | None = Field(None, description="The platform's, over leaf and salt.")


class ResultItem(Schema):
    status: int
    result: ResultOut | None = None
    receipt: ReceiptOut | None = None
    problem: Problem | None = None


class ResultList(Schema):
    items: list[ResultItem]


class VerdictOut(Schema):
    valid: bool
    checks: dict[str, bool | None]
    reason: str | None


class DeviceIn(Strict):
    uuid: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
    kind: Literal["cuda", "rocm", "cpu"]
    model: Name
    memory_mb: Annotated[int, Field(ge=1, le=100_000_000)]
    cuda: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$")] | None = None
    driver: Annotated[str, Field(max_length=40, pattern=r"^[^\x00]*$")] | None = None
    tflops: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    memory_gbps: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class RegisterIn(Strict):
    name: Name
    region: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00]*$")]
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=50)]
    models: Annotated[list[Name], Field(max_length=200)] = []
    devices: Annotated[list[DeviceIn], Field(min_length=1, max_length=64)]
    price: MoneyIn
    address: Address
    proof: Signature
    nonce: Hash | None = Field(None, description="Which nonce was signed; the newest one if absent.")
    sandbox: Literal["process", "bubblewrap", "container"] = "process"


class NonceOut(Schema):
    nonce: str
    prefix: str
    chain_id: int


class RegisteredDevice(Schema):
    id: UUID
    uuid: str
    verified: bool


class RegisterOut(Schema):
    id: UUID
    state: str
    devices: list[RegisteredDevice]
    heartbeat_seconds: int
    challenge: dict[str, Any] | None
    challenges: list[dict[str, Any]] = Field([], description="All that are open, to be answered at once.")
    sequence: int
    head: str
    wait_url: str | None
    chain_id: int


class Telemetry(Strict):
    device_id: UUID
    utilization: Annotated[float, Field(ge=0, le=100)] | None = None
    memory_used_mb: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    temperature_c: Annotated[float, Field(ge=-100, le=1000)] | None = None
    power_w: Annotated[float, Field(ge=0, le=100_000)] | None = None
    clock_mhz: Annotated[int, Field(ge=0, le=100_000)] | None = None
    memory_clock_mhz: Annotated[int, Field(ge=0, le=100_000)] | None = None
    ecc_errors: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(None, description="Uncorrected, since start.")
    latency_ms: Annotated[float, Field(ge=0, le=600_000)] | None = Field(None, description="Of the beat before.")
    throttle: Annotated[list[Name], Field(max_length=16)] | None = Field(None, description="Why clocks are held down.")


class HeartbeatIn(Strict):
    telemetry: Annotated[list[dict[str, Any]], Field(max_length=64)] = []
    running: Annotated[list[UUID], Field(max_length=1000)] = []
    sequence: Annotated[int, Field(ge=1, lt=2**63)]
    previous: Hash
    signature: Signature | None = None


class Acknowledgement(Schema):
    sequence: int
    head: str
    received_at: datetime
    signature: str


class HeartbeatOut(Schema):
    state: str
    cancel: list[UUID]
    challenge: dict[str, Any] | None
    challenges: list[dict[str, Any]]
    acknowledgement: Acknowledgement


class PollIn(Strict):
    max_jobs: Annotated[int, Field(ge=1, le=64)] = 1
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = 0
    kinds: Annotated[list[Kind], Field(max_length=50)] = []


class LeaseOut(Schema):
    id: UUID
    kind: str
    input: Any = None
    input_artifact: Sha256 | None = None
    client: str
    miner: UUID
    attempt: int
    salt: str
    unit_price: Money
    lease_token: UUID
    lease_expires_at: AwareDatetime
    max_seconds: float
    max_units: int


class PollOut(Schema):
    jobs: list[LeaseOut]


class TokenIn(Strict):
    lease_token: UUID


class ProgressIn(TokenIn):
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    message: Text | None = None
    logs: Annotated[list[str], Field(max_length=REPORT_LINES)] = Field(
        [], description="Lines that the job wrote, each without its line break; a long one is cut."
    )
    logs_from: Annotated[int, Field(ge=0, lt=2**30)] | None = Field(
        None, description="Number of the first of them within this attempt, so that repeats are kept once."
    )


class ResultIn(TokenIn):
    output: Any = None
    output_artifact: Sha256 | None = None
    metrics: dict[str, Any] = {}
    claimed_ms: Annotated[int, Field(ge=0, le=10**12)] | None = None
    statement_signature: Signature


class BatchResultIn(ResultIn):
    job_id: UUID


class ResultsIn(Strict):
    results: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100)]


class FailIn(TokenIn):
    code: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[a-z][a-z0-9_.]*$")]
    message: Text
    retryable: bool = True


class AcceptedOut(Schema):
    job: JobOut
    receipt: ReceiptOut


class AcceptedItem(Schema):
    status: int
    job: JobOut | None = None
    receipt: ReceiptOut | None = None
    problem: Problem | None = None


class AcceptedList(Schema):
    items: list[AcceptedItem]


class MinerDevice(Schema):
    id: UUID
    uuid: str
    kind: str
    model: str
    memory_mb: int
    verified: bool
    tflops: float | None
    memory_gbps: float | None
    verified_model: str | None
    dl_score: float | None
    doubt: str


class MinerOut(Schema):
    id: UUID
    name: str
    region: str
    state: str
    concurrency: int
    kinds: list[str]
    models: list[str]
    price: Money
    address: str
    sandbox: str
    last_seen_at: datetime
    sequence: int
    head: str
    devices: list[MinerDevice]
    heartbeat_seconds: int


class CapabilitiesIn(Strict):
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=50)] | None = None
    models: Annotated[list[Name], Field(max_length=200)] | None = None
    price: MoneyIn | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None


class EarningsOut(Schema):
    released: Money
    maturing: Money
    fees: Money
    jobs: int


class CommitIn(Strict):
    roots: Annotated[list[Hash], Field(min_length=1, max_length=10_000)]


class OpenIn(Strict):
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]


class MemoryIn(Strict):
    roots: Annotated[list[Hash], Field(max_length=4096)] = []
    rows: Annotated[list[dict[str, Any]], Field(max_length=64)] = []


class CommitOut(Schema):
    nonce: str
    rows: list[Any]


class OpenOut(Schema):
    passed: bool
    tflops: float | None
    memory_gbps: float | None
    reason: str | None


class ArtifactOut(Schema):
    sha256: str
    size: int
