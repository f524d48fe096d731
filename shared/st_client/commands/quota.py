"""``st quota`` and ``st prices``."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

import click

from st_client.errors import BadInputError
from st_client.output import connect, duration, json_option, print_json, print_table, size
from st_shared.protocol.quotas import (
    PriceRequest,
    QuotaAction,
    QuotaKind,
    QuotaRequest,
    QuotaUsage,
    QuotaView,
    UsageView,
)

_KINDS, _ACTIONS = get_args(QuotaKind), get_args(QuotaAction)


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--path", help="ORG, ORG/TEAM, ORG/TEAM/USER or all; your own without it.")
@json_option
def quota(context: click.Context, *, path: str | None, as_json: bool) -> None:
    """Show the limits that hold for you: used, held for running and waiting jobs, left.

    RUNS OUT says when nothing is left if as much is used as today.
    """
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        view = client.quota_usage(path)
    if as_json:
        print_json(view)
    else:
        _print_usage(view)


@quota.command("list")
@json_option
def list_quotas(*, as_json: bool) -> None:
    """List the limits that bind you, and those that you may see."""
    with connect() as client:
        found = client.quotas()
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [(each.id, _node(each), each.kind, f"{each.amount:f}", each.action) for each in found]
    print_table(("ID", "PATH", "KIND", "AMOUNT", "THEN"), rows)


@quota.command("set")
@click.argument("path")
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("amount")
@click.option("--then", "action", type=click.Choice(_ACTIONS), default="block", show_default=True)
@click.option("--role", help="Let each user of this role there have as much for themselves.")
@click.option("--as-lead", is_flag=True, help="For members of a team that you lead.")
@json_option
def set_quota(
    *,
    path: str,
    kind: Any,
    amount: str,
    action: Any,
    role: str | None,
    as_lead: bool,
    as_json: bool,
) -> None:
    """Let PATH use at most AMOUNT: money, slot-hours, a number or bytes, as KIND says.

    Members of an organisation or a team share what it allows. With --role it is a limit of each
    user who has that role there, unless one of their own stands.
    """
    request = QuotaRequest(path=path, role=role, kind=kind, amount=_number(amount), action=action)
    with connect() as client:
        made = client.set_team_quota(request) if as_lead else client.set_quota(request)
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made.id}  {_node(made)}: {made.kind} {made.amount:f}, then {made.action}")


@quota.command("remove")
@click.argument("quota_id")
@json_option
def remove_quota(*, quota_id: str, as_json: bool) -> None:
    """Take a limit away; `st quota list` shows ids."""
    with connect() as client:
        client.remove_quota(quota_id)
    if as_json:
        print_json({"removed": quota_id})
    else:
        click.echo(f"{quota_id}: removed")


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def prices(context: click.Context, *, as_json: bool) -> None:
    """Show what an hour of a slot costs; the most specific line that matches counts."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = client.prices()
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (
            each.id,
            each.accelerator,
            each.provider,
            f"{each.amount:f}",
            f"{each.since.astimezone(UTC):%Y-%m-%d %H:%M}",
        )
        for each in found
    ]
    print_table(("ID", "ACCELERATOR", "PROVIDER", "AN HOUR", "SINCE"), rows)


@prices.command("set")
@click.argument("accelerator")
@click.argument("amount")
@click.option("--provider", default="*", show_default=True, help="Glob of the provider.")
@json_option
def set_price(*, accelerator: str, amount: str, provider: str, as_json: bool) -> None:
    """Let an hour of a slot like ACCELERATOR (a glob) cost AMOUNT from now on."""
    request = PriceRequest(accelerator=accelerator, provider=provider, amount=_number(amount))
    with connect() as client:
        made = client.set_price(request)
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made.id}  {made.accelerator} of {made.provider}: {made.amount:f} an hour")


@prices.command("remove")
@click.argument("price_id")
@json_option
def remove_price(*, price_id: str, as_json: bool) -> None:
    """Take a price away; what was charged stays charged."""
    with connect() as client:
        client.remove_price(price_id)
    if as_json:
        print_json({"removed": price_id})
    else:
        click.echo(f"{price_id}: removed")


def _number(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise BadInputError(f"{text!r} is no number; write one such as 12.50") from None
    if not found.is_finite() or found < 0:
        raise BadInputError(f"{text!r} is no number from 0 on")
    return found


def _print_usage(view: UsageView) -> None:
    now = view.made_at
    click.echo(f"{view.path}, days and months of {view.time_zone}")
    spent = view.spending
    click.echo(
        f"used today {spent.day_cost:f}, this month {spent.month_cost:f} "
        f"and {spent.month_slot_hours:f} slot-hours"
    )
    if not view.quotas:
        click.echo("no quota stands here")
        return
    print_table(
        ("PATH", "KIND", "LIMIT", "USED", "HELD", "LEFT", "RENEWS IN", "RUNS OUT", "THEN"),
        [_row(each, now) for each in view.quotas],
    )


def _row(each: QuotaUsage, now: datetime) -> tuple[str, ...]:
    amounts = (each.amount, each.used, each.held, each.left)
    return (
        _node(each),
        each.kind,
        *(_amount(each.kind, amount) for amount in amounts),
        duration((each.renews_at - now).total_seconds()) if each.renews_at else "never",
        _runs_out(each, now),
        each.action,
    )


def _node(each: QuotaView) -> str:
    return f"each {each.role} of {each.path}" if each.role else each.path


def _amount(kind: str, amount: Decimal) -> str:
    return size(float(amount)) if kind == "storage_bytes" else f"{amount:f}"


def _runs_out(each: QuotaUsage, now: datetime) -> str:
    if each.runs_out_at is None:
        return ""
    seconds = (each.runs_out_at - now).total_seconds()
    return "now" if seconds <= 0 else f"in {duration(seconds)}"
