"""Who this worker is to its controller, kept in a file that only its user can read."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from st_shared.durable import write_durably
from st_worker.errors import UsageError
from st_worker.folder import StateFolder


class Credential(BaseModel):
    """The secret that a join token was exchanged for; it never appears in logs."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    controller: str
    worker_id: str
    name: str
    secret: str
    previous: str | None = None
    """While ``secret`` has not been used yet: the one before it, which is in force until then."""

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
        """Keep it in ``folder``, mode 0600, to stay there through a power cut."""
        write_durably(folder.credential, self.model_dump_json())


class Secrets:
    """What a worker shows: the secret that counts, and the one before it until that is proven."""

    def __init__(self) -> None:
        self.current = ""
        self.previous: str | None = None

    def set(self, current: str, previous: str | None = None) -> None:
        """Show ``current`` from now on; where it is refused at once, ``previous`` again."""
        self.current, self.previous = current, previous

    def proven(self, shown: str) -> None:
        """A call with ``shown`` was taken: what came before it is void."""
        if shown == self.current:
            self.previous = None

    def may_try_again(self, shown: str) -> bool:
        """After a call with ``shown`` was refused: whether another secret is to be shown instead.

        Calls that were on their way while the secret changed are refused by the way; and one that
        was never taken may have been replaced by a late repetition of the call that fetched it.
        """
        if shown != self.current:
            return True
        if self.previous is None:
            return False
        self.set(self.previous)
        return True
