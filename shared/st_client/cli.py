"""The ``st`` command: submits jobs, follows them, fetches what they made."""

import os
import sys

import click

from st_client.errors import EXIT_CODES, ClientError
from st_client.lazy_group import LazyGroup

_COMMANDS = "st_client.commands"

COMMANDS = {
    "login": (f"{_COMMANDS}.login:login", "Sign in to a controller."),
    "submit": (f"{_COMMANDS}.submit:submit", "Put a job into the queue."),
    "sweep": (f"{_COMMANDS}.arrays:sweep", "Submit many variations of one job."),
    "jobs": (f"{_COMMANDS}.jobs:jobs", "List jobs, newest first."),
    "show": (f"{_COMMANDS}.jobs:show", "Show one job: state, reason, progress, attempts."),
    "logs": (f"{_COMMANDS}.logs:logs", "Print the log of a job."),
    "metrics": (f"{_COMMANDS}.metrics:metrics", "Draw or list what a job measured."),
    "artifacts": (f"{_COMMANDS}.artifacts:artifacts", "List or fetch the files of a job."),
    "cancel": (f"{_COMMANDS}.jobs:cancel", "Stop a job."),
    "retry": (f"{_COMMANDS}.steering:retry", "Queue a failed or cancelled job again."),
    "priority": (f"{_COMMANDS}.steering:priority", "Change the priority of a job."),
    "can-i": (f"{_COMMANDS}.can_i:can_i", "Say whether a job could be submitted, and why not."),
    "approvals": (f"{_COMMANDS}.approvals:approvals", "List jobs that wait for approval."),
    "approve": (f"{_COMMANDS}.approvals:approve", "Approve jobs that wait for it."),
    "reject": (f"{_COMMANDS}.approvals:reject", "Reject jobs that wait for approval."),
    "rules": (f"{_COMMANDS}.rules:rules", "List and make rules for what may be asked for."),
    "approval-rules": (
        f"{_COMMANDS}.approval_rules:approval_rules",
        "List and make rules for what waits for approval.",
    ),
    "explain": (f"{_COMMANDS}.queue:explain", "Say why a job waits, and when it will start."),
    "queue": (f"{_COMMANDS}.queue:queue", "Show the queue: shares, limits, reservations."),
    "quota": (f"{_COMMANDS}.quota:quota", "Show what may be used, is used and is left."),
    "prices": (f"{_COMMANDS}.quota:prices", "Show or set what slots cost."),
    "arrays": (f"{_COMMANDS}.arrays:arrays", "List job arrays, or show one."),
    "datasets": (f"{_COMMANDS}.datasets:datasets", "Register and list datasets."),
    "workers": (f"{_COMMANDS}.workers:workers", "List workers, and say what they should be."),
    "secrets": (f"{_COMMANDS}.secrets:secrets", "List and keep values that only jobs are given."),
    "configs": (f"{_COMMANDS}.configs:configs", "List and save parts of job files under a name."),
    "orgs": (f"{_COMMANDS}.orgs:orgs", "List organisations, make and change them."),
    "teams": (f"{_COMMANDS}.orgs:teams", "List teams, and say who is in them."),
    "users": (f"{_COMMANDS}.users:users", "List users, and say what they may do."),
    "keys": (f"{_COMMANDS}.keys:keys", "List your API keys, make and end them."),
    "roles": (f"{_COMMANDS}.roles:roles", "List roles, and make others."),
    "audit": (f"{_COMMANDS}.audit:audit", "List who did what."),
    "join-token": (f"{_COMMANDS}.join_tokens:join_token", "Make, list and revoke join tokens."),
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items()
)


@click.group(
    cls=LazyGroup,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="st-fleet", prog_name="st")
def st() -> None:
    """Train diffusion models on a fleet: submit jobs, follow them, fetch what they made.

    A job is named by its id, by a unique beginning of it, or by "latest".
    """


def main() -> None:
    """Run ``st`` and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run ``st`` with ``arguments``; errors are told in sentences, never by a traceback."""
    try:
        # Click gives the code with which a command ended early; commands themselves give nothing.
        code: int | None = st.main(arguments, prog_name="st", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("\ninterrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ClientError as error:
        click.echo(error.text(), err=True)
        return error.exit_code
    return code or 0
