"""What can go wrong for a client, and the exit code of ``st`` that tells it.

ClientError              1   the controller, a transfer or a job failed
BadInputError        2   a file, an option or a request is wrong
UnreachableError     3   nobody answers at the controller's address
ForbiddenError       4   not signed in, or not permitted
MissingError         5   there is no such thing
ConflictError        6   the thing is in a state that does not allow this
"""

from collections.abc import Sequence
from typing import Any

EXIT_CODES = {
    0: "done",
    1: "failed; also when a followed job failed or was cancelled",
    2: "wrong input or usage",
    3: "the controller cannot be reached",
    4: "not signed in, or not permitted",
    5: "not found",
    6: "conflict with the present state",
    130: "interrupted with Ctrl-C",
}
"""Exit codes of ``st``."""


class ClientError(Exception):
    """A failure to be told to a person: what happened, why, and what to do.

    ``title`` is the short sentence, ``detail`` the particulars, ``hint`` the mend, ``fields`` the
    wrong fields with a sentence each, ``code`` a stable word for programs.
    """

    exit_code = 1

    def __init__(
        self,
        title: str,
        *,
        detail: str = "",
        hint: str | None = None,
        code: str = "error",
        fields: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.title, self.detail, self.hint = title, detail, hint
        self.code, self.fields = code, list(fields)

    def document(self) -> dict[str, Any]:
        """The same as JSON, in the words of a problem document."""
        return {
            "error": {
                "title": self.title,
                "detail": self.detail,
                "hint": self.hint,
                "code": self.code,
                "errors": [{"field": name, "message": text} for name, text in self.fields],
            }
        }

    def text(self) -> str:
        """The same in lines for people."""
        lines = [f"error: {self}"]
        lines += [f"  {name}: {text}" if name else f"  {text}" for name, text in self.fields]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class BadInputError(ClientError):
    """A file, an option or a request is wrong."""

    exit_code = 2


class UnreachableError(ClientError):
    """Nobody answers at the controller's address."""

    exit_code = 3


class ForbiddenError(ClientError):
    """Not signed in, or not permitted."""

    exit_code = 4


class MissingError(ClientError):
    """There is no such thing."""

    exit_code = 5


class ConflictError(ClientError):
    """The thing is in a state that does not allow this."""

    exit_code = 6
