"""What an exit of trainer or script and an order to stop mean together. Pure."""

import signal

from st_shared.protocol.faults import is_device_fault, is_peer_lost
from st_shared.protocol.journal import ExitCode
from st_shared.protocol.states import FailureKind, Outcome
from st_shared.protocol.worker import Failure
from st_worker.record import Ending, StopCause
from st_worker.trainer import TrainerExit

_KINDS = {
    ExitCode.BAD_SPEC: FailureKind.BAD_SPEC,
    ExitCode.BAD_DATA: FailureKind.BAD_DATA,
    ExitCode.NOT_FINITE: FailureKind.NOT_FINITE,
    ExitCode.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
    ExitCode.DISK_FULL: FailureKind.DISK_FULL,
    ExitCode.PEER_LOST: FailureKind.PEER_LOST,
    ExitCode.DEVICE_FAULT: FailureKind.DEVICE_FAULT,
}
_KILLED_CODE = 128 + signal.SIGKILL
"""How a launcher of several processes says that one of them was killed."""
_FULL_DISK = "No space left on device"

MESSAGE_CHARACTERS = 16_000
"""Longest message of a failure, under the limit of the protocol."""


def ending_of(
    ended: TrainerExit, stop: StopCause | None, said: str, *, in_gang: bool = False
) -> Ending:
    """How the attempt ended.

    ``said`` is what the trainer last said, for the message of a failure. In a gang all members
    stop at a checkpoint when one of them is told to, and who is told to stop and misses another
    has only seen that one go first.
    """
    if stop == "cancel":
        return Ending(outcome=Outcome.CANCELLED)
    if ended.code == ExitCode.SUCCEEDED:
        return Ending(outcome=Outcome.SUCCEEDED)
    if stop == "time_limit":
        return ending_by_order(stop, exit_code=ended.code)
    was_told = stop in {"preempt", "shutdown"} and _has_stopped(ended)
    if was_told or (in_gang and _has_gone_with_others(ended, stop, said)):
        return Ending(outcome=Outcome.PREEMPTED)
    if said and ended.code in _KINDS:  # the trainer has named the cause; its code adds nothing
        return failed(_kind(ended, said), said, ended.code)
    return failed(_kind(ended, said), f"{described(ended)}\n{said}".strip(), ended.code)


def ending_of_script(ended: TrainerExit, stop: StopCause | None, said: str) -> Ending:
    """The same of a script, whose exit codes mean nothing but success and failure."""
    if stop == "cancel":
        return Ending(outcome=Outcome.CANCELLED)
    if ended.code == 0:
        return Ending(outcome=Outcome.SUCCEEDED)
    if stop and not ended.error:
        return ending_by_order(stop, exit_code=ended.code)
    kind = FailureKind.KILLED if not ended.error and ended.code is None else FailureKind.CRASHED
    return failed(
        _narrowed(kind, ended, said),
        f"{described(ended, 'the script')}\n{said}".strip(),
        ended.code,
    )


def ending_by_order(stop: StopCause, when: str = "", exit_code: int | None = None) -> Ending:
    """How an attempt ended that did nothing but obey; ``when`` says where it stood."""
    if stop == "cancel":
        return Ending(outcome=Outcome.CANCELLED)
    if stop == "time_limit":
        said = f"the job's time limit was reached{when}"
        return failed(FailureKind.TIME_LIMIT, said, exit_code)
    return Ending(outcome=Outcome.PREEMPTED)


def failed(kind: FailureKind, message: str, exit_code: int | None = None) -> Ending:
    """A failure, its message cut to what the protocol takes; the end says most, so it is kept."""
    if len(message) > MESSAGE_CHARACTERS:
        message = "..." + message[3 - MESSAGE_CHARACTERS :]
    failure = Failure(kind=kind, message=message, exit_code=exit_code)
    return Ending(outcome=Outcome.FAILED, failure=failure)


def on_full_disk(ending: Ending, why: str) -> Ending:
    """An ending on a disk that has no room at all, which ``why`` says.

    What crashed there most likely could not write, and could not say so either.
    """
    failure = ending.failure
    if failure is None or failure.kind not in {FailureKind.CRASHED, FailureKind.KILLED}:
        return ending
    said = f"{failure.message}\n{why}"
    return failed(FailureKind.DISK_FULL, said, failure.exit_code)


def described(ended: TrainerExit, name: str = "the trainer") -> str:
    """The exit in a sentence; ``name`` says what has ended."""
    if ended.error:
        return ended.error
    if ended.signal is not None:
        why = "; the host ran out of memory" if _is_oom(ended) else ""
        return f"{name} was ended by signal {ended.signal}{_name(ended.signal)}{why}"
    if ended.code is None:
        return f"{name} was killed together with its supervisor"
    return f"{name} ended with exit code {ended.code}"


def _has_stopped(ended: TrainerExit) -> bool:
    """Whether it ended because it was told to, at a checkpoint or by force."""
    return ended.error is None and ended.code in {None, ExitCode.PREEMPTED}


def _has_gone_with_others(ended: TrainerExit, stop: StopCause | None, said: str) -> bool:
    """Whether a member stopped because others did, or was told to and saw one go before it."""
    if stop is None:
        return ended.code == ExitCode.PREEMPTED
    return stop in {"preempt", "shutdown"} and _kind(ended, said) is FailureKind.PEER_LOST


def _kind(ended: TrainerExit, said: str) -> FailureKind:
    if ended.error:
        return FailureKind.CRASHED
    if ended.code in _KINDS:
        return _KINDS[ended.code]
    was_killed = ended.code in {None, ExitCode.PREEMPTED, _KILLED_CODE}
    kind = FailureKind.KILLED if was_killed else FailureKind.CRASHED
    return _narrowed(kind, ended, said)


def _narrowed(kind: FailureKind, ended: TrainerExit, said: str) -> FailureKind:
    """What the host or the last words of a process tell beyond that it crashed or was killed."""
    if _is_oom(ended):
        return FailureKind.OUT_OF_MEMORY
    if is_device_fault(said):
        return FailureKind.DEVICE_FAULT
    if is_peer_lost(said):
        return FailureKind.PEER_LOST
    return FailureKind.DISK_FULL if _FULL_DISK in said else kind


def _is_oom(ended: TrainerExit) -> bool:
    """Whether the kernel ended it for want of memory: killed, while the kernel counted a victim."""
    return ended.oom_kills > 0 and (ended.signal == signal.SIGKILL or ended.code == _KILLED_CODE)


def _name(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return f" ({known[number]})" if number in known else ""
