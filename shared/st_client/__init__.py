"""The ``st`` command and a small Python client for pipelines, on the public API alone.

>>> from st_client import Client
>>> with Client("http://127.0.0.1:8000", api_key) as client:
...     job = client.submit(spec)
...     print(client.wait(job.id).state)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_client.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Load the client when it is asked for: ``st --help`` does without it."""
    if name == "Client":
        from st_client.client import Client  # noqa: PLC0415

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
