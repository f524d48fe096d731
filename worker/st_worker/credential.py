"""Who this worker is to its controller, kept in a file that only its user can read."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from st_shared.durable import write_whole
from st_worker.errors import UsageError
from st_worker.folder import StateFolder


class Credential(BaseModel):
    """The secret that a join token was exchanged for; it never appears in logs."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    controller: str
    worker_id: str
    name: str
    secret: str

    def __repr__(self) -> str:
        return f"Credential({self.worker_id} at {self.controller})"

    __str__ = __repr__

    @classmethod
    def load(cls, folder: StateFolder) -> Self | None:
        """The credential in ``folder``; none before the worker has joined.

        Raises:
            UsageError: the file is damaged.
        """
        try:
            return cls.model_validate_json(folder.credential.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise UsageError(
                f"{folder.credential} is damaged: remove it and join again with a token"
            ) from None

    def save(self, folder: StateFolder) -> None:
        """Keep it in ``folder``, mode 0600, before anything is done with it."""
        write_whole(folder.credential, self.model_dump_json())
