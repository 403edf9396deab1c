from apps.gpu.models.artifacts import Artifact, ArtifactGrant, Waiter
from apps.gpu.models.jobs import Attempt, Job, JobClass, JobLog, JobResult, QueuedJob, Receipt
from apps.gpu.models.miners import Challenge, Device, Heartbeat, Miner, Nonce
from apps.gpu.models.occupancy import Occupancy
from apps.gpu.models.reliability import HeartbeatRoot, ReliabilityDay

__all__ = [
    "Artifact",
    "ArtifactGrant",
    "Attempt",
    "Challenge",
    "Device",
    "Heartbeat",
    "HeartbeatRoot",
    "Job",
    "JobClass",
    "JobLog",
    "JobResult",
    "Miner",
    "Nonce",
    "Occupancy",
    "QueuedJob",
    "Receipt",
    "ReliabilityDay",
    "Waiter",
]
