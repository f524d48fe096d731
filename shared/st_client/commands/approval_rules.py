"""``st approval-rules``: which jobs wait for a person's word."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar, get_args

import click

from st_client.errors import BadInputError
from st_client.output import (
    connect,
    duration,
    json_option,
    print_json,
    print_table,
    request_of,
)
from st_shared.protocol.policy_approvals import (
    ApprovalRuleRequest,
    ApprovalRuleView,
    ConditionName,
)
from st_shared.spec.duration import seconds_of

Function = TypeVar("Function", bound=Callable[..., Any])
_MICROS = 1_000_000
_COUNTED = ("cost_over", "slot_hours_over", "jobs_per_day_over")
_WORDS = {
    "cost_over": "costs over {}",
    "slot_hours_over": "over {} slot-hours",
    "jobs_per_day_over": "over {} jobs a day",
    "first_job": "first job",
}


@click.group("approval-rules", invoke_without_command=True)
@click.pass_context
@json_option
def approval_rules(context: click.Context, *, as_json: bool) -> None:
    """List the rules by which your jobs wait for approval, or all that you may make.

    All that match a job count: the highest role, the highest quorum, the shortest time.
    """
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.rules.approvals())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    columns = ("RULE", "NAME", "WHEN", "OF", "AGREED BY", "WITHIN", "EXEMPT", "")
    print_table(columns, map(_row, found))


def _demands(function: Function) -> Function:
    """What a rule demands, each of which may be left as it is."""
    for decorate in (
        json_option,
        click.option("--priority", type=int, help="The highest is named first."),
        click.option("--expires", metavar="TIME", help="Then it is rejected, such as 2d."),
        click.option("--exempt-user", "exempt_users", multiple=True, metavar="USER"),
        click.option("--exempt-role", "exempt_roles", multiple=True, metavar="ROLE"),
        click.option("--quorum", type=click.IntRange(1, 20), help="How many must agree."),
        click.option("--approver", metavar="ROLE", help="Who agrees, or a higher one."),
        click.option("--org", help="Jobs of this organisation alone."),
    ):
        function = decorate(function)
    return function


@approval_rules.command()
@click.argument("name")
@click.argument("condition", type=click.Choice(get_args(ConditionName)))
@click.argument("value", required=False)
@_demands
def add(*, name: str, condition: str, value: str | None, as_json: bool, **demands: Any) -> None:
    """Let jobs wait where CONDITION holds: money, hours or jobs over VALUE, or a glob VALUE."""
    fields = {"name": name, "condition": condition, **_value(condition, value)}
    _store({**fields, **_given(demands)}, None, as_json=as_json)


@approval_rules.command("set")
@click.argument("rule")
@click.option("--name")
@click.option("--value", help="Another amount or glob.")
@_demands
def set_(*, rule: str, name: str | None, value: str | None, as_json: bool, **demands: Any) -> None:
    """Change what a rule says; jobs that wait already wait by the old one."""
    changes = _given({"name": name, **demands})
    with connect() as client:
        standing = client.rules.approval(rule)
    if value is not None:
        changes |= _value(standing.condition, value)
    _store({**_fields(standing), **changes}, rule, as_json=as_json)


@approval_rules.command()
@click.argument("rule")
@json_option
def disable(*, rule: str, as_json: bool) -> None:
    """Let a rule ask for nothing until it is enabled again."""
    _switch(rule, on=False, as_json=as_json)


@approval_rules.command()
@click.argument("rule")
@json_option
def enable(*, rule: str, as_json: bool) -> None:
    """Let a rule hold again."""
    _switch(rule, on=True, as_json=as_json)


@approval_rules.command()
@click.argument("rule")
@json_option
def remove(*, rule: str, as_json: bool) -> None:
    """Take a rule away; jobs that wait by it go on waiting."""
    with connect() as client:
        client.rules.remove_approval(rule)
    print_json({"removed": rule}) if as_json else click.echo(f"removed {rule}")


def _switch(rule: str, *, on: bool, as_json: bool) -> None:
    with connect() as client:
        standing = client.rules.approval(rule)
    _store({**_fields(standing), "enabled": on}, rule, as_json=as_json)


def _store(fields: dict[str, Any], instead: str | None, *, as_json: bool) -> None:
    request = request_of(ApprovalRuleRequest, fields, "this is no rule")
    with connect() as client:
        made = client.rules.set_approval(request, instead)
    if as_json:
        print_json(made)
        return
    state = "" if made.enabled else ", disabled"
    click.echo(f"{made.id} ({made.name}): {_when(made)}, {_agreed(made)}{state}")


def _fields(rule: ApprovalRuleView) -> dict[str, Any]:
    return rule.model_dump(include=set(ApprovalRuleRequest.model_fields))


def _given(demands: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as the rule has them."""
    found = {key: value for key, value in demands.items() if value not in (None, ())}
    if "expires" in found:
        try:
            found["expires_after"] = seconds_of(found.pop("expires"))
        except ValueError as wrong:
            raise BadInputError(f"--expires: {wrong}") from None
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _value(condition: str, value: str | None) -> dict[str, Any]:
    """``VALUE`` as the amount or the glob that the condition takes."""
    if value is None:
        return {}
    if condition not in _COUNTED:
        return {"pattern": value}
    try:
        amount = Decimal(value) * (_MICROS if condition == "cost_over" else 1)
        if amount == amount.to_integral_value():
            return {"amount": int(amount)}
    except (ArithmeticError, ValueError):
        pass
    said = "a sum such as 12.50" if condition == "cost_over" else "a whole number"
    raise BadInputError(f"{value!r} is not {said}")


def _row(rule: ApprovalRuleView) -> Sequence[str]:
    return (
        rule.id,
        rule.name,
        _when(rule),
        rule.org or "all",
        _agreed(rule),
        duration(rule.expires_after),
        ", ".join([*rule.exempt_roles, *rule.exempt_users]),
        "" if rule.enabled else "disabled",
    )


def _when(rule: ApprovalRuleView) -> str:
    if rule.condition not in _WORDS:
        return f"{rule.condition} {rule.pattern}"
    amount = Decimal(rule.amount or 0) / (_MICROS if rule.condition == "cost_over" else 1)
    return _WORDS[rule.condition].format(f"{amount.normalize():f}")


def _agreed(rule: ApprovalRuleView) -> str:
    return rule.approver if rule.quorum == 1 else f"{rule.quorum} of {rule.approver}"
