"""Every change that the API makes leaves an audit entry: watched in all tests of the application.

Whatever a test asks of a writing route, and is granted, is looked at here: no entry, no success.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select

from st_controller.store.schema import AuditEntry

SAFE = {"GET", "HEAD", "OPTIONS"}
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


@contextmanager
def watching(client: Any) -> Iterator[None]:
    """Fail where a request changed something and nothing was noted; ``client`` is a test client."""
    database, send = client.app.state.platform.db, client.request

    def newest() -> int:
        with database.read() as session:
            return session.scalar(select(func.max(AuditEntry.seq))) or 0

    def request(method: str, url: Any, **options: Any) -> Any:
        if method.upper() in SAFE or is_exempt(str(url)):
            return send(method, url, **options)
        before = newest()
        reply = send(method, url, **options)
        repeated = reply.status_code == 200 and "Idempotency-Key" in (options.get("headers") or {})
        if reply.is_success and not repeated:
            assert newest() > before, f"{method} {url} left no audit entry"
        return reply

    client.request = request
    yield
    client.request = send


def is_exempt(url: str) -> bool:
    """Whether this address is one of ``NOT_AUDITED``."""
    path = re.sub(r"^https?://[^/]+", "", url).partition("?")[0]
    return any(re.fullmatch(pattern, path) for pattern in NOT_AUDITED)
