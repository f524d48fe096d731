"""Where bytes live: one interface, a local folder and S3 behind it.

``store``      the interface
``key``        which keys there are
``local``      a folder; its signed URLs lead to the controller
``signature``  how those URLs are signed and verified
``s3``         a bucket
``multipart``  uploads in parts, for ``local_multipart`` and ``s3_multipart``
"""

from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.objectstore.local import LocalStore, ObjectWriter
from st_shared.objectstore.multipart import (
    MultipartUploads,
    OpenUpload,
    PartDigest,
    StoredPart,
    UploadMissingError,
    part_bytes,
)
from st_shared.objectstore.s3 import S3Store
from st_shared.objectstore.signature import (
    BadSignatureError,
    GrantError,
    GrantExpiredError,
    SignedGrant,
)
from st_shared.objectstore.store import (
    DigestMismatchError,
    ObjectChangedError,
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
    "MultipartUploads",
    "ObjectChangedError",
    "ObjectMissingError",
    "ObjectStat",
    "ObjectStore",
    "ObjectTooLargeError",
    "ObjectWriter",
    "OpenUpload",
    "PartDigest",
    "S3Store",
    "SignedGrant",
    "SignedUpload",
    "StoreUnreachableError",
    "StoredPart",
    "UploadMissingError",
    "check_key",
    "part_bytes",
]
