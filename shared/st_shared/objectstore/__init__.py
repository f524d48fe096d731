"""Where bytes live: one interface, a local folder and S3 behind it."""

from st_shared.objectstore.store import (
    ObjectMissingError,
    ObjectStat,
    ObjectStore,
    SignedUpload,
)

__all__ = ["ObjectMissingError", "ObjectStat", "ObjectStore", "SignedUpload"]
