"""What can be refused, and how it is said.

Refusal                     a request that is answered with a problem document
InvalidRequest      422
NotSignedIn         401
NotPermitted        403
QuotaExceeded       403
NotFound            404
Conflict            409
StaleLease        409   the caller's lease is void; it must end that work
SequenceGap       409   journal lines are missing between ours and the caller's
IllegalMove       409   the state machine has no such transition
StillVerifying      425   an earlier call for the same files is at work
TooMany             429
Unavailable         503
"""

from typing import Self

from st_shared.protocol.problems import FieldProblem, Problem


class Refusal(Exception):
    """A request that is answered with a problem document (RFC 9457)."""

    status = 400
    code = "bad_request"
    title = "The request was refused"
    hint: str | None = None

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        errors: list[FieldProblem] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.hint = hint or type(self).hint
        self.errors = errors or []

    def problem(self) -> Problem:
        """The problem document that says this."""
        return Problem(
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            hint=self.hint,
            errors=self.errors,
        )


class InvalidRequest(Refusal):
    """The body or a parameter is wrong; ``errors`` names each field."""

    status = 422
    code = "invalid_request"
    title = "The request is not valid"

    @classmethod
    def of(
        cls, field: str, message: str, *, code: str | None = None, hint: str | None = None
    ) -> Self:
        """The refusal of one field."""
        errors = [FieldProblem(field=field, message=message)]
        return cls(message, code=code, hint=hint, errors=errors)


class NotSignedIn(Refusal):
    """No credential, or one that is not in force."""

    status = 401
    code = "not_signed_in"
    title = "Sign in first"
    hint = "sign in with `st login URL`, or send a valid key as `Authorization: Bearer ...`"


class NotPermitted(Refusal):
    """The caller is known, but may not do this."""

    status = 403
    code = "not_permitted"
    title = "Not permitted"
    hint = "ask an admin for the permission"


class QuotaExceeded(Refusal):
    """A quota has too little left for what is asked."""

    status = 403
    code = "quota_exceeded"
    title = "A quota is used up"
    hint = "`st quota` shows what is left"


class NotFound(Refusal):
    """There is no such thing, or the caller may not know of it."""

    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(Refusal):
    """The thing is in a state that does not allow this."""

    status = 409
    code = "conflict"
    title = "Conflict"


class StaleLease(Conflict):
    """The caller's lease is void; it must end that work and report no more of it."""

    code = "stale_lease"
    title = "The lease is void"
    hint = "end the process of this attempt"


class SequenceGap(Conflict):
    """Journal lines are missing between the last that is stored and the first that was sent."""

    code = "sequence_gap"
    title = "Journal lines are missing"

    def __init__(self, detail: str, *, acked_seq: int) -> None:
        super().__init__(detail, hint=f"send again from line {acked_seq + 1}")
        self.acked_seq = acked_seq

    def problem(self) -> Problem:
        """The problem document, with the last line that is stored."""
        return super().problem().model_copy(update={"acked_seq": self.acked_seq})


class IllegalMove(Conflict):
    """The state machine has no such transition."""

    code = "illegal_move"
    title = "That cannot follow the present state"


class StillVerifying(Refusal):
    """An earlier call for the same files is at work; asked again later, how it went is told."""

    status = 425
    code = "still_verifying"
    title = "Still being verified"
    hint = "ask again in some seconds"


class TooMany(Refusal):
    """Asked too often."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"
    hint = "wait a minute and try again"


class Unavailable(Refusal):
    """A part that is needed does not answer."""

    status = 503
    code = "unavailable"
    title = "Not available just now"
    hint = "try again in a moment"
