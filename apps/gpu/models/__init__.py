from apps.gpu.models.artifacts import Artifact, ArtifactGrant, Waiter
from apps.gpu.models.jobs import Attempt, Job, JobClass, JobLog, JobResult, QueuedJob, Receipt
from apps.gpu.models.miners import Challenge, Device, Heartbeat, Miner, Nonce
from apps.gpu.models.occupancy import Occupancy

__all__ = [
    "Artifact",
    "ArtifactGrant",
    "Attempt",
    "Challenge",
    "Device",
    "Heartbeat",
    "Job",
    "JobClass",
    "JobLog",
    "JobResult",
    "Miner",
    "Nonce",
    "Occupancy",
    "QueuedJob",
    "Receipt",
    "Waiter",
]
