"""``st rules``: what people may ask for."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from st_client.output import connect, json_option, print_json, print_table, request_of
from st_shared.protocol.policy_rules import ResourceName, ResourceRuleRequest, ResourceRuleView

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def rules(context: click.Context, *, as_json: bool) -> None:
    """List the rules for what you may ask for, or all that you may make; commands make others.

    A matching deny beats every allow. Where allows of a resource apply to somebody, one must match.
    """
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.rules.resources())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    print_table(("RULE", "EFFECT", "RESOURCE", "LIKE", "FOR", "NOTE"), map(_row, found))


def _made_by(function: Function) -> Function:
    """What `allow` and `deny` take."""
    for decorate in (
        json_option,
        click.option("--instead", metavar="RULE", help="Put it in place of this rule."),
        click.option("--note", default="", help="Told to whoever is refused."),
        click.option("--org", help="For members of this organisation alone."),
        click.option("--user", help="For this person."),
        click.option("--team", metavar="ORG/TEAM", help="For what is submitted as this team."),
        click.option("--role", help="For people of this role."),
        click.argument("like", metavar="GLOB"),
        click.argument("resource", type=click.Choice(get_args(ResourceName))),
    ):
        function = decorate(function)
    return function


@rules.command()
@_made_by
def allow(**fields: Any) -> None:
    """Let people ask for what GLOB matches, and for nothing else that no rule allows."""
    _make("allow", **fields)


@rules.command()
@_made_by
def deny(**fields: Any) -> None:
    """Let nobody ask for what GLOB matches: everybody, a role, a team or a person."""
    _make("deny", **fields)


@rules.command()
@click.argument("rule")
@json_option
def remove(*, rule: str, as_json: bool) -> None:
    """Take a rule away; what is queued stays as it is."""
    with connect() as client:
        client.rules.remove_resource(rule)
    print_json({"removed": rule}) if as_json else click.echo(f"removed {rule}")


def _make(
    effect: str,
    *,
    resource: str,
    like: str,
    role: str | None,
    team: str | None,
    user: str | None,
    org: str | None,
    note: str,
    instead: str | None,
    as_json: bool,
) -> None:
    given = {"role": role, "team": team, "user": user}
    whom = [(kind, name) for kind, name in given.items() if name is not None]
    if len(whom) > 1:
        raise click.UsageError("give one of --role, --team and --user, or none for everybody")
    kind, subject = whom[0] if whom else ("everyone", "")
    fields = {
        "org": org,
        "subject_kind": kind,
        "subject": subject,
        "resource": resource,
        "pattern": like,
        "effect": effect,
        "note": note,
    }
    request = request_of(ResourceRuleRequest, fields, "this is no rule")
    with connect() as client:
        made = client.rules.set_resource(request, instead)
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made.id}: {made.effect} {made.resource} {made.pattern} for {_whom(made)}")


def _row(rule: ResourceRuleView) -> tuple[str, ...]:
    return (rule.id, rule.effect, rule.resource, rule.pattern, _whom(rule), rule.note)


def _whom(rule: ResourceRuleView) -> str:
    where = f" of {rule.org}" if rule.org and rule.subject_kind != "team" else ""
    return f"{rule.subject_kind} {rule.subject}".strip() + where
