"""What one check found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
"""warn: it works, but not well or not for long; fail: no job would run, or none would be kept."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    """Stable, such as ``clock``."""
    level: Level
    message: str
    mend: str = ""
    """What to do; empty where there is nothing to do."""


Check = Callable[[], Iterable[Finding]]


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", message)


def warn(check: str, message: str, mend: str) -> Finding:
    """It works, but not well or not for long."""
    return Finding(check, "warn", message, mend)


def fail(check: str, message: str, mend: str) -> Finding:
    """It has to be mended."""
    return Finding(check, "fail", message, mend)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 when something failed, else 0."""
    return int(any(finding.level == "fail" for finding in findings))


def document(findings: list[Finding]) -> dict[str, object]:
    """The findings as ``--json`` prints them."""
    return {"ok": not exit_code(findings), "checks": [asdict(finding) for finding in findings]}


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings for people."""
    for finding in findings:
        yield f"{finding.level:<4}  {finding.check:<12} {finding.message}"
        if finding.mend:
            yield f"      {'':<12} -> {finding.mend}"
