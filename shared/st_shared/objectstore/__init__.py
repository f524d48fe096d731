"""Where bytes live: one interface, a local folder and S3 behind it.

``store``      the interface
``key``        which keys there are
``local``      a folder; its signed URLs lead to the controller
``signature``  how those URLs are signed and verified
``s3``         a bucket
"""

from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.objectstore.local import LocalStore, ObjectWriter
from st_shared.objectstore.s3 import S3Store
from st_shared.objectstore.signature import (
    BadSignatureError,
    GrantError,
    GrantExpiredError,
    SignedGrant,
)
from st_shared.objectstore.store import (
    DigestMismatchError,
    ObjectMissingError,
    ObjectStat,
    ObjectStore,
    ObjectTooLargeError,
    SignedUpload,
    StoreUnreachableError,
)

__all__ = [
    "BadSignatureError",
    "DigestMismatchError",
    "GrantError",
    "GrantExpiredError",
    "InvalidKeyError",
    "LocalStore",
    "ObjectMissingError",
    "ObjectStat",
    "ObjectStore",
    "ObjectTooLargeError",
    "ObjectWriter",
    "S3Store",
    "SignedGrant",
    "SignedUpload",
    "StoreUnreachableError",
    "check_key",
]
