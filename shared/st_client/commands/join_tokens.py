"""``st join-token``: what lets new workers in."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from pydantic import ValidationError

from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.protocol.resources import JoinTokenRequest, JoinTokenView
from st_shared.spec.duration import seconds_of
from st_shared.spec.reading import problems_of


@click.group("join-token")
def join_token() -> None:
    """Make, list and revoke tokens with which workers join."""


@join_token.command()
@click.option("--uses", default=1, show_default=True, help="How many workers may join with it.")
@click.option("--expires", default="1h", show_default=True, help='Such as "30m" or "2d".')
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="For its workers.")
@click.option("--provider", help="Where its workers come from, such as aws; they cannot say else.")
@json_option
def create(
    *, uses: int, expires: str, labels: Sequence[str], provider: str | None, as_json: bool
) -> None:
    """Make a join token; it is printed this once."""
    request = _request(uses, expires, labels, provider)
    with connect() as client:
        made = client.create_join_token(
            uses=request.uses,
            expires_in_seconds=request.expires_in_seconds,
            labels=request.labels,
            provider=request.provider,
        )
        url = client.url
    if as_json:
        print_json(made)
    else:
        click.echo(made.token)
        click.echo(f"join with: st-worker join {url} --token {made.token}", err=True)


@join_token.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List join tokens that are not revoked, without their secrets."""
    with connect() as client:
        found = list(client.join_tokens())
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    now = datetime.now(UTC)
    print_table(
        ("ID", "STATE", "USES LEFT", "EXPIRES", "PROVIDER", "LABELS"),
        (_row(item, now) for item in found),
    )


def _row(token: JoinTokenView, now: datetime) -> tuple[str, ...]:
    state = "expired" if token.expires_at <= now else "used up" if not token.uses_left else "open"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(token.labels.items()))
    expires = f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
    return (token.id, state, str(token.uses_left), expires, token.provider or "", labels)


@join_token.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
def revoke(*, ids: Sequence[str], as_json: bool) -> None:
    """Let nobody join with these tokens any more; workers that joined stay."""
    with connect() as client:
        for token_id in ids:
            client.revoke_join_token(token_id)
    if as_json:
        print_json({"revoked": list(ids)})
    else:
        click.echo(f"revoked {', '.join(ids)}")


def _request(
    uses: int, expires: str, labels: Sequence[str], provider: str | None
) -> JoinTokenRequest:
    pairs = [label.partition("=") for label in labels]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise BadInputError(f"--label {wrong[0]!r} has no value", hint="write it as KEY=VALUE")
    try:
        seconds = int(float(str(seconds_of(expires))))
    except ValueError as error:
        raise BadInputError(f"--expires {expires!r}: {error}") from None
    document = {
        "uses": uses,
        "expires_in_seconds": seconds,
        "labels": {key: value for key, _, value in pairs},
        "provider": provider,
    }
    try:
        return JoinTokenRequest.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, JoinTokenRequest, document)
        fields = [(item.field, item.message) for item in problems]
        raise BadInputError("no such join token can be made", fields=fields) from None
