"""Writing routes that leave no audit entry, each with the reason; all others do."""

import re

NOT_AUDITED = {
    r"/v1/worker/.*": "what workers report is the work itself; what they are given is audited",
    r"/v1/probe/.*": "the doctor of a worker tries how bytes pass; nothing is stored",
    r"/v1/objects/.*": "bytes behind a signed URL; who may send them was decided before",
    r"/v1/jobs:check": "asks what would be, and writes nothing",
    r"/v1/approvals:decide": "each that is decided is audited; where all are refused, none is",
    r"/v1/auth/logout": "does nothing with a key; in a browser it ends a session, which is audited",
    r"/v1/datasets": "announces what is to be sent; the dataset is registered when it is complete",
}
"""Writing methods that leave no entry, and why."""


def is_exempt(url: str) -> bool:
    """Whether this address is one of ``NOT_AUDITED``."""
    path = re.sub(r"^https?://[^/]+", "", url).partition("?")[0]
    return any(re.fullmatch(pattern, path) for pattern in NOT_AUDITED)
