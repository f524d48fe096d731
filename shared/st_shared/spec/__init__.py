"""What people write down: job files and training specifications (YAML in, JSON Schema out)."""

from st_shared.spec.adapter import AdapterSpec, LycorisSpec
from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.digest import spec_sha256
from st_shared.spec.families import FAMILIES, Family, ModelSpec, PixelDitConfig
from st_shared.spec.job import JobSpec, Priority, ResourceRequest, RetryPolicy
from st_shared.spec.objective import LossSpec, NoiseSpec, ObjectiveSpec, TimestepSpec
from st_shared.spec.optimizer import EmaSpec, OptimizerSpec, ScheduleSpec
from st_shared.spec.reading import SpecProblem, SpecProblems, read_job_file, validate_job
from st_shared.spec.training import CheckpointSpec, TrainingSpec
from st_shared.spec.validation import PromptSpec, ValidationSpec

__all__ = [
    "FAMILIES",
    "AdapterSpec",
    "CheckpointSpec",
    "DatasetSpec",
    "EmaSpec",
    "Family",
    "JobSpec",
    "LossSpec",
    "LycorisSpec",
    "ModelSpec",
    "NoiseSpec",
    "ObjectiveSpec",
    "OptimizerSpec",
    "PixelDitConfig",
    "Priority",
    "PromptSpec",
    "ResourceRequest",
    "RetryPolicy",
    "ScheduleSpec",
    "SpecProblem",
    "SpecProblems",
    "TimestepSpec",
    "TrainingSpec",
    "ValidationSpec",
    "read_job_file",
    "spec_sha256",
    "validate_job",
]
