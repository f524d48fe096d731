"""``st keys``: one's own API keys; and what all commands that make keys have in common."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from st_client.output import ago, connect, json_option, print_json, print_table, request_of
from st_shared.protocol.resources import ApiKeyCreated, ApiKeyRequest, ApiKeyView

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def keys(context: click.Context, *, as_json: bool) -> None:
    """List your API keys, without their secrets; commands make and end them."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.own_keys())
    print_keys(found, as_json=as_json)


def key_options(function: Function) -> Function:
    """What commands take that make a key."""
    for decorate in (
        click.option(
            "--from", "addresses", multiple=True, metavar="NETWORK", help="Used from there alone."
        ),
        click.option("--days", "expires_in_days", type=int, help="It ends after so many days."),
        click.option("--scope", "scopes", multiple=True, metavar="PERMISSION", help="No others."),
        click.option("--name", default="st", show_default=True, help="For people."),
    ):
        function = decorate(function)
    return function


@keys.command()
@key_options
@json_option
def create(*, as_json: bool, **fields: Any) -> None:
    """Make a key for a pipeline; its secret is shown this once."""
    request = key_request(**fields)
    with connect() as client:
        made = client.people.create_own_key(request)
    print_made(made, as_json=as_json)


@keys.command()
@click.argument("key")
@json_option
def revoke(*, key: str, as_json: bool) -> None:
    """End a key at once."""
    with connect() as client:
        client.people.revoke_own_key(key)
    print_json({"revoked": key}) if as_json else click.echo(f"revoked {key}")


def key_request(
    *, name: str, scopes: Sequence[str], expires_in_days: int | None, addresses: Sequence[str]
) -> ApiKeyRequest:
    """The request for a key, or a refusal."""
    fields = {
        "name": name,
        "scopes": list(scopes) or None,
        "expires_in_days": expires_in_days,
        "addresses": list(addresses) or None,
    }
    return request_of(ApiKeyRequest, fields, "no such key can be made")


def print_made(made: ApiKeyCreated, *, as_json: bool) -> None:
    """Print a new key: its secret alone on standard output, so that it can be piped."""
    if as_json:
        print_json(made)
        return
    click.echo(f"made {made.id} ({made.name}); its secret is shown this once:", err=True)
    click.echo(made.key)


def print_keys(found: Iterable[ApiKeyView], *, as_json: bool) -> None:
    """Print keys as a table."""
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (
            each.id,
            each.name,
            each.prefix,
            ", ".join(each.scopes) if each.scopes is not None else "all of yours",
            ", ".join(each.addresses or ()) or "everywhere",
            f"{each.expires_at:%Y-%m-%d}" if each.expires_at else "never",
            f"{ago(each.last_used_at)} ago" if each.last_used_at else "never",
        )
        for each in found
    ]
    print_table(("ID", "NAME", "KEY", "SCOPES", "FROM", "ENDS", "USED"), rows)
