"""What can go wrong in an agent.

WorkerError
├── UsageError         what the person typed cannot work; exit code 2
├── Refused            the controller does not know this worker (any more); exit code 3
├── TemporaryTrouble   no answer, or one that a later try may better
│   └── StrangeAnswer  somebody between here and the controller answered in its stead
├── RequestRefused     the controller refused one request for good
│   ├── StaleLease     the lease is void: end that process and report no more
│   ├── OfferGone      somebody else has the attempt, or nobody needs it
│   └── SequenceGap    journal lines are missing at the controller
├── TransferError      a file could not be fetched intact
│   ├── FetchRefused   the store refused its signed URL, which may have run out
│   └── NoRoom         this host has no room for it; no job is to blame
├── Abandoned          an order said that the lease is void
└── JournalLost        lines that the controller needs are no longer on this disk
"""

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line shows its help without pydantic
    from st_shared.protocol.problems import Problem


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""What an ``OSError`` says when there is no room."""


class WorkerError(Exception):
    """The base of them all; the message is a sentence for people."""


class UsageError(WorkerError):
    """What the person typed cannot work."""


class TemporaryTrouble(WorkerError):
    """No answer, or one that a later try may better."""


class StrangeAnswer(TemporaryTrouble):
    """Somebody between here and the controller answered in its stead, whatever that said."""


class UploadGivenUp(WorkerError):
    """The store did not take a file in all the time that it was given."""


class TransferError(WorkerError):
    """A file could not be fetched intact."""


class FetchRefused(TransferError):
    """The store refused the signed URL of a file, which may have run out."""


class NoRoom(TransferError):
    """This host has no room for a file; no job is to blame. ``size`` is in bytes."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Abandoned(WorkerError):
    """An order said that the lease is void."""


class JournalLost(WorkerError):
    """Lines that the controller needs are no longer on this disk."""


class _Answered(WorkerError):
    """The controller answered with a problem document."""

    def __init__(self, problem: "Problem") -> None:
        hint = f"; {problem.hint}" if problem.hint else ""
        super().__init__(f"{problem.detail} ({problem.status} {problem.code}){hint}")
        self.problem = problem


class Refused(_Answered):
    """The controller does not know this worker (any more)."""


class RequestRefused(_Answered):
    """The controller refused one request for good."""


class StaleLease(RequestRefused):
    """The lease is void: end that process and report no more."""


class OfferGone(RequestRefused):
    """Somebody else has the attempt, or nobody needs it."""


class SequenceGap(RequestRefused):
    """Journal lines are missing at the controller; ``acked_seq`` is the last that it holds."""

    @property
    def acked_seq(self) -> int:
        """The last line that the controller holds."""
        return self.problem.acked_seq or 0
