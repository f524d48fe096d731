"""Sessions, passwords and second factors, as ``/v1/auth`` takes and tells them.

| route | access | body | answer |
|---|---|---|---|
| ``GET auth/sessions`` | session | | ``Page[SessionInfo]`` |
| ``DELETE auth/sessions/{id}`` | session | | 204 |
| ``POST auth/sessions:end-others`` | session | | ``Ended`` |
| ``POST auth/password`` | session | ``PasswordChange`` | 204 |
| ``POST auth/reset`` | the token | ``PasswordReset`` | 204 |
| ``POST users/{name}/reset-token`` | ``admin.users`` | ``ResetOffer`` | ``ResetTokenView`` |
| ``POST users/{name}/sessions:end`` | ``admin.users`` | | ``Ended`` |
| ``POST users/{name}/api-keys`` | ``admin.users`` | ``ApiKeyRequest`` | ``ApiKeyCreated`` 201 |
| ``GET auth/second-factor`` | session | | ``SecondFactorView`` |
| ``POST auth/second-factor`` | session | ``PasswordProof`` | ``SecondFactorSecret`` |
| ``POST auth/second-factor/confirm`` | session | ``CodeProof`` | ``RecoveryCodes`` |
| ``POST auth/second-factor/remove`` | session | ``FullProof`` | 204 |
"""

from typing import Annotated

from pydantic import Field

from st_shared.protocol.message import Message, Moment, Resource, Text

NewPassword = Annotated[str, Field(min_length=10, max_length=1024)]
PresentPassword = Annotated[str, Field(min_length=1, max_length=1024)]
Code = Annotated[Text, Field(min_length=6, max_length=40)]
"""Six digits of an authenticator, or a recovery code."""


class SessionInfo(Resource):
    """A browser that is signed in."""

    id: str
    created_at: Moment
    seen_at: Moment
    """When it was used last, to the minute."""
    expires_at: Moment
    address: str | None
    """From where it was opened."""
    agent: str | None
    """What the browser said of itself then."""
    current: bool
    """Whether it is the one that asks."""


class Ended(Resource):
    """How many were ended."""

    count: int


class PasswordChange(Message):
    """Choose another password."""

    password: PresentPassword
    new: NewPassword


class PasswordReset(Message):
    """Choose a password with a token that an admin gave."""

    token: Text = Field(min_length=1, max_length=200)
    new: NewPassword


class PasswordProof(Message):
    """Says that it is still the same person at the keyboard."""

    password: PresentPassword


class CodeProof(Message):
    """A code of the authenticator."""

    code: Code


class FullProof(Message):
    """Password and code."""

    password: PresentPassword
    code: Code


class SecondFactorView(Resource):
    """Whether a code is asked for beside the password."""

    on: bool
    since: Moment | None
    recovery_codes: int
    """How many are left."""


class SecondFactorSecret(Resource):
    """What an authenticator needs, told this once."""

    secret: str
    """Base 32."""
    uri: str
    """``otpauth://totp/...``, as authenticators read it from a picture or a link."""


class RecoveryCodes(Resource):
    """Codes that open the account once each, told this once."""

    codes: list[str]


class ResetOffer(Message):
    """Let a person choose a password."""

    clears_second_factor: bool = False
    """Whether no code is asked for any more, because the authenticator is lost."""


class ResetTokenView(Resource):
    """A token with which a person chooses a password, told this once."""

    username: str
    token: str
    expires_at: Moment
