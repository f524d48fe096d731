"""The checksum that ties a checkpoint to the specification that made it."""

import hashlib
import json

from st_shared.spec.training import TrainingSpec


def spec_sha256(training: TrainingSpec) -> str:
    """SHA-256, in hex, of everything in ``training`` that decides what is computed.

    Taken over JSON with sorted keys and every default written out. Folders of datasets are left
    out, since they differ from machine to machine: the checkpoint holds a checksum of the samples.
    So is what becomes of damaged files, which are no samples.
    So is what is cached and where, which changes no number; how much is encoded at once may. So is
    how processes share the work, which changes nothing but rounding. And so is what
    runs beside the training.
    """
    document = training.model_dump(
        mode="json",
        exclude={
            "datasets": {"__all__": {"path", "damaged"}},
            "cache": {"latents", "images", "text", "share", "endpoint_url", "max_gb"},
            "distributed": True,
            "checkpoint": {"sharded"},
            "hooks": True,
            "trackers": True,
            "publish": True,
        },
    )
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
