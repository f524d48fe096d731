"""``st login``: gets a key for this machine and keeps it."""

import socket
import sys

import click
from pydantic import ValidationError

from st_client.client import Client
from st_client.connection import check_url
from st_client.credentials import Credential, Credentials
from st_client.errors import BadInputError, ForbiddenError
from st_client.output import json_option, print_json


@click.command()
@click.argument("url")
@click.option("--username", help="Sign in as this person; the password is asked for.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--api-key-stdin", is_flag=True, help="Read an existing API key there instead.")
@click.option(
    "--setup-token",
    metavar="TOKEN",
    help="Create the first admin with this token, as `admin` unless --username says otherwise.",
)
@click.option("--code", help="Of your authenticator, or a recovery code; asked for if needed.")
@click.option(
    "--reset-token", metavar="TOKEN", help="Choose a new password first, with an admin's token."
)
@json_option
def login(
    *,
    url: str,
    username: str | None,
    password_stdin: bool,
    api_key_stdin: bool,
    setup_token: str | None,
    code: str | None,
    reset_token: str | None,
    as_json: bool,
) -> None:
    """Sign in to the controller at URL and make it the current one.

    With a password, an API key named after this machine is created and kept; the password is
    not. Without options a controller that is already known becomes the current one.
    """
    if api_key_stdin and (username or password_stdin or setup_token or reset_token):
        raise click.UsageError("--api-key-stdin stands alone: it needs no name and no password")
    url = check_url(url)
    credentials = Credentials()
    known = credentials.find(url)
    if api_key_stdin:
        api_key = _line("API key")
    elif known and not (username or setup_token or reset_token):
        api_key = known.api_key
    else:
        api_key = _new_key(url, username, password_stdin, setup_token, code, reset_token)
    with Client(url, api_key) as client:
        me = client.me()
    credentials.keep(Credential(url, api_key, me.username))
    if as_json:
        print_json({"url": url, "me": me.model_dump(mode="json"), "stored": str(credentials.path)})
    else:
        click.echo(f"signed in to {url} as {me.username} ({me.role})")


def _new_key(
    url: str,
    username: str | None,
    password_stdin: bool,
    setup_token: str | None,
    code: str | None,
    reset_token: str | None,
) -> str:
    if not username:
        username = "admin" if setup_token else _asked("User name")
    password = (
        _line("password")
        if password_stdin
        else _asked("Password", hidden=True, twice=bool(setup_token or reset_token))
    )
    with Client(url) as client:
        try:
            if setup_token:
                return client.set_up(setup_token, username, password).key
            if reset_token:
                client.reset_password(reset_token, password)
            return _key_of(client, username, password, code)
        except ValidationError as error:
            # Without the values: one of them is the password.
            wrong = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
            raise BadInputError("this cannot be a user name and password", fields=wrong) from None


def _key_of(client: Client, username: str, password: str, code: str | None) -> str:
    """A key of the person, who is asked for a code where the account wants one."""
    name = f"st on {socket.gethostname()}"[:120]
    try:
        return client.create_api_key(username, password, name, code).key
    except ForbiddenError as error:
        if error.code != "second_factor_needed" or not sys.stdin.isatty():
            raise
        return client.create_api_key(username, password, name, _asked("Code")).key


def _line(what: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise BadInputError(f"no {what} on standard input", hint="pipe it in as one line")
    return line


def _asked(what: str, *, hidden: bool = False, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        raise BadInputError(
            "there is no terminal to ask on",
            hint="give --username NAME --password-stdin, or --api-key-stdin",
        )
    answer: str = click.prompt(what, hide_input=hidden, confirmation_prompt=twice, err=True)
    return answer
