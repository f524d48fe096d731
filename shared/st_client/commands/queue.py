"""``st queue`` and ``st explain``."""

import math
from datetime import UTC, datetime
from typing import Any

import click

from st_client.output import clean, connect, duration, json_option, print_json, print_table
from st_shared.protocol.queue import (
    Explanation,
    LevelView,
    QueueRules,
    QueueView,
    ShareRequest,
    TenantView,
)
from st_shared.protocol.states import JobState

_HOUR = 3600.0


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def queue(context: click.Context, *, as_json: bool) -> None:
    """Show the queue: shares, use, limits, what is held and what is reserved."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        view = client.queue()
    if as_json:
        print_json(view)
    else:
        _print_queue(view)


class _Limit(click.IntRange):
    """A whole number, or ``none`` for no limit."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Keep ``none`` as it is; an option that was not given is None."""
        return value if value == _NO_LIMIT else super().convert(value, param, ctx)


class _Weight(click.FloatRange):
    """A number above 0 that is one: comparisons alone let ``nan`` pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


_NO_LIMIT = "none"
_LARGEST_LIMIT = 10**9
_LARGEST_WEIGHT = 1e6


@queue.command()
@click.argument("path")
@click.option(
    "--weight", type=_Weight(0, _LARGEST_WEIGHT, min_open=True), help="Beside its siblings."
)
@click.option(
    "--max-jobs",
    type=_Limit(0, _LARGEST_LIMIT),
    help="Most jobs that run at one time, or none.",
)
@click.option(
    "--max-slots",
    type=_Limit(0, _LARGEST_LIMIT),
    help="Most slots that they hold together, or none.",
)
@click.option("--remove", is_flag=True, help="Weight 1 and no limits again.")
@json_option
def share(
    *,
    path: str,
    weight: float | None,
    max_jobs: int | str | None,
    max_slots: int | str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Change weight or limits of PATH: ORG, ORG/TEAM, ORG/TEAM/USER, or "all"; for admins.

    What is not given stays as it is.
    """
    options = {"weight": weight, "max_jobs": max_jobs, "max_slots": max_slots}
    given = {name: value for name, value in options.items() if value is not None}
    if remove == bool(given):
        raise click.UsageError("give --weight, --max-jobs or --max-slots, or else --remove")
    with connect() as client:
        if remove:
            client.remove_share(path)
            set_now: dict[str, Any] = {"path": path, "removed": True}
        else:
            lifted = {name: None if value == _NO_LIMIT else value for name, value in given.items()}
            wanted = ShareRequest.model_validate(lifted)
            set_now = client.change_share(path, wanted).model_dump()
    if as_json:
        print_json(set_now)
    else:
        click.echo(f"{path}: {'no share of its own' if remove else _share_words(set_now)}")


@queue.command()
@click.option("--set", "changes", multiple=True, metavar="NAME=SECONDS", help="Such as horizon=60.")
@json_option
def policy(*, changes: tuple[str, ...], as_json: bool) -> None:
    """Show the rules of the queue, or change some of them; changing is for admins."""
    with connect() as client:
        rules = client.queue_policy()
        if changes:
            rules = client.set_queue_policy(_changed(rules, changes))
    if as_json:
        print_json(rules)
    else:
        print_table(("RULE", "VALUE"), ((name, f"{value:g}") for name, value in rules))


@click.command()
@click.argument("job")
@json_option
def explain(*, job: str, as_json: bool) -> None:
    """Say why a job waits, what is ahead of it, and when it will start."""
    with connect() as client:
        found = client.explain(client.find_job(job))
    if as_json:
        print_json(found)
    else:
        _print_explanation(found)


def _changed(rules: QueueRules, changes: tuple[str, ...]) -> dict[str, Any]:
    wanted: dict[str, Any] = rules.model_dump()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in wanted:
            raise click.UsageError(f"--set {change!r}: the rules are {', '.join(wanted)}")
        try:
            wanted[name] = number = type(wanted[name])(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise click.UsageError(f"--set {change!r}: {text!r} is no number that fits")
    return wanted


def _print_queue(view: QueueView) -> None:
    held = ", ".join(f"{count} {reason}" for reason, count in view.held.items())
    click.echo(
        f"{view.waiting} waiting, {view.running} running, "
        f"{view.slots_taken} of {view.slots} slots taken" + (f"; held: {held}" if held else "")
    )
    for kept in view.reservations:
        when = f" by {_when(kept.starts_by)}" if kept.starts_by else ""
        what = "being cleared" if kept.preempting else "reserved"
        click.echo(f"{', '.join(kept.workers)} {what} for {kept.job_id or 'another job'}{when}")
    print_table(
        ("TENANT", "WEIGHT", "USED", "RUNNING", "SLOTS", "WAITING", "LIMITS", ""),
        (_tenant_row(tenant) for tenant in view.tenants),
    )


def _tenant_row(tenant: TenantView) -> tuple[str, ...]:
    return (
        clean(tenant.path) or "all",
        f"{tenant.weight:g}",
        f"{(tenant.usage + tenant.forfeited) / _HOUR:,.1f} slot-hours",
        str(tenant.running_jobs),
        str(tenant.running_slots),
        str(tenant.waiting),
        _limits(tenant.max_jobs, tenant.max_slots),
        "" if tenant.within_share else "over its share",
    )


def _limits(max_jobs: int | None, max_slots: int | None) -> str:
    jobs = f"{max_jobs} jobs" if max_jobs is not None else ""
    slots = f"{max_slots} slots" if max_slots is not None else ""
    return ", ".join(limit for limit in (jobs, slots) if limit)


def _share_words(share: dict[str, Any]) -> str:
    limits = _limits(share["max_jobs"], share["max_slots"])
    return f"weight {share['weight']:g}" + (f", at most {limits}" if limits else "")


def _print_explanation(found: Explanation) -> None:
    click.echo(f"{found.job_id} is {found.state}")
    if found.reason:
        click.echo(f"{clean(found.reason.message)} [{found.reason.code}]")
        if found.reason.hint:
            click.echo(f"next: {clean(found.reason.hint)}")
    click.echo(_level_words(found.level))
    if found.place is not None:
        click.echo(f"{found.place} jobs are expected to start before it")
    if found.starts_at:
        left = duration(max(0.0, (found.starts_at - datetime.now(UTC)).total_seconds()))
        click.echo(f"expected start {_when(found.starts_at)}, in {left}")
    elif found.starts_after:
        click.echo(f"it starts later than {_when(found.starts_after)}; the forecast ends there")
    elif found.reason and found.state == JobState.QUEUED:
        click.echo("its start cannot be foretold")
    if found.ahead:
        print_table(
            ("AHEAD", "PRIORITY", "SLOTS", "STARTS"),
            (
                (job.job_id or "another's", job.priority, str(job.slots), _when(job.starts_at))
                for job in found.ahead
            ),
        )
    if found.shares:
        print_table(
            ("SHARE OF", "WEIGHT", "USED", "RUNNING", "SLOTS", "WAITING", "LIMITS", ""),
            (_tenant_row(tenant) for tenant in found.shares),
        )


def _level_words(level: LevelView) -> str:
    own = level.asked if level.override is None else level.override
    override = f", overridden with {level.override}" if level.override is not None else ""
    raised = f", raised to {level.reached} by waiting" if level.reached > own else ""
    return f"level {level.asked}{override}{raised}"


def _when(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "?"
