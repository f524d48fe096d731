"""Which log lines a person asked for, of those that are stored and of those that are to come."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
from pydantic import TypeAdapter, ValidationError

from st_client.events import JobEvent
from st_shared.protocol.resources import LogLine, StateChange
from st_shared.spec.duration import Duration


class SinceType(click.ParamType[datetime]):
    """A moment (RFC 3339) or how long ago it was, such as ``10m``."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment, in UTC."""
        text = str(value)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return moment.astimezone(UTC)  # without a zone it is the clock of this machine
        try:
            ago = TypeAdapter(Duration).validate_python(text)
        except ValidationError:
            self.fail(f"{text!r} is neither a moment nor a time such as 30s, 10m, 2h", param, ctx)
        return datetime.now(UTC) - timedelta(seconds=ago)


class PatternType(click.ParamType[re.Pattern[str]]):
    """A regular expression."""

    name = "pattern"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> re.Pattern[str]:
        """The expression, ready for use."""
        try:
            return re.compile(str(value))
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


@dataclass(frozen=True)
class LogChoice:
    """Lines of one attempt, since a moment, the last ones, those that match."""

    attempt: int | None = None
    since: datetime | None = None
    tail: int | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def is_from_the_beginning(self) -> bool:
        """Whether nothing at the beginning may be left out unread."""
        return self.attempt is None and self.since is None and self.tail is None

    def has(self, line: LogLine) -> bool:
        """Whether a line belongs to it; of ``tail`` only the controller knows."""
        if self.attempt is not None and line.attempt != self.attempt:
            return False
        if self.since is not None and line.at < self.since:
            return False
        return self.pattern is None or self.pattern.search(line.message) is not None

    def shows(self, event: JobEvent, after: LogLine | None) -> bool:
        """Whether an event is to be shown where lines up to ``after`` have been."""
        if isinstance(event, LogLine):
            return self.has(event)
        if isinstance(event, StateChange):
            return after is None or event.state.is_final or event.at > after.at
        return False
