"""What would come of a job file now: the pass of ``admission.py`` step by step, writing nothing."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from st_controller.domain.policy import money
from st_controller.domain.policy.resource_rules import Subject
from st_controller.errors import Refusal
from st_controller.services import configs, drafts, stored_secrets, submission
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft, Rules
from st_controller.services.policy import approval_step, book, reservation, resource_step
from st_controller.services.policy.approval_step import BYPASS, Applicant
from st_controller.services.policy.book import PolicyBook
from st_controller.services.policy.quota_book import Payer
from st_controller.services.policy.reservation import Prospect
from st_controller.store.requests import request_text
from st_shared.protocol.policy_check import CheckStep, CheckView, StepName
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import Reason

SUBMIT = "job.submit"
"""The permission to submit."""

Verdict = Literal["yes", "no", "needs_approval"]


def read(document: object) -> tuple[Draft | None, CheckStep]:
    """The job file, as far as it can be read without the database."""
    try:
        return drafts.read(document), CheckStep(step="file", verdict="yes")
    except Refusal as refused:
        return None, _refused("file", refused)


def check(session: Session, actor: Actor, draft: Draft, rules: Rules, now: datetime) -> CheckView:
    """What each step says of a job that the actor would submit now."""
    steps = [_content(session, actor, draft), _permission(actor, draft, rules)]
    policy = book.current(session)
    row = _row(draft)
    who = Subject(actor.org, draft.spec.team or actor.team, actor.username, actor.role)
    steps.append(_rules(policy, who, draft, row))
    payer = Payer(who.org, who.team, actor.user_id)
    found = reservation.prospect(session, policy.quotas, draft, payer, row["family"], now)
    steps.append(_quotas(found))
    steps.append(_approval(session, policy, actor, who, draft, row, now, found))
    return view(actor, steps)


def view(actor: Actor, steps: list[CheckStep]) -> CheckView:
    """The steps with what follows from all of them."""
    verdicts = {step.verdict for step in steps if step.step != "workers"}
    verdict: Verdict = "yes"
    if "no" in verdicts:
        verdict = "no"
    elif any(step.step == "approval" and step.verdict == "waits" for step in steps):
        verdict = "needs_approval"
    return CheckView(verdict=verdict, org=actor.org, team=actor.team, steps=steps)


def workers(warnings: list[Reason]) -> CheckStep:
    """What the workers that are known say of it."""
    notes = [_sentence(warning) for warning in warnings]
    return CheckStep(step="workers", verdict="waits" if notes else "yes", notes=notes)


def _content(session: Session, actor: Actor, draft: Draft) -> CheckStep:
    try:
        configs.must_exist(session, actor, [draft])
        stored_secrets.must_exist(session, actor, [draft])
        submission.pinned_datasets(session, actor.org, [draft])
    except Refusal as refused:
        return _refused("file", refused)
    return CheckStep(step="file", verdict="yes")


def _permission(actor: Actor, draft: Draft, rules: Rules) -> CheckStep:
    if not actor.may(SUBMIT):
        said = f"this needs the permission {SUBMIT!r}"
        return CheckStep(step="permission", verdict="no", notes=[said])
    try:
        drafts.must_be_allowed(actor, [draft], rules)
    except Refusal as refused:
        return _refused("permission", refused)
    return CheckStep(step="permission", verdict="yes")


def _rules(policy: PolicyBook, who: Subject, draft: Draft, row: dict[str, Any]) -> CheckStep:
    (told,), problems = resource_step.look(policy.resources, [who], [draft], [row])
    return CheckStep(
        step="rules",
        verdict="no" if problems else "yes",
        problems=problems,
        notes=[_sentence(warning) for warning in told],
    )


def _quotas(found: Prospect) -> CheckStep:
    refused = [_sentence(reason) for reason in found.refusals]
    notes = [_sentence(reason) for reason in found.notes]
    if found.cost:
        notes.insert(0, f"It is expected to cost {money.decimal(found.cost):f} at most.")
    return CheckStep(step="quotas", verdict="no" if refused else "yes", notes=[*refused, *notes])


def _approval(
    session: Session,
    policy: PolicyBook,
    actor: Actor,
    who: Subject,
    draft: Draft,
    row: dict[str, Any],
    now: datetime,
    found: Prospect,
) -> CheckStep:
    applicant = Applicant(actor.user_id, actor.may(BYPASS), waits_its_turn=False)
    (judged,) = approval_step.apply(
        session,
        now,
        policy.approvals,
        applicant,
        [who],
        [draft],
        [row],
        [found.cost],
        [found.needs],
    )
    notes = [_sentence(warning) for warning in judged.warnings]
    if judged.need is None:
        return CheckStep(step="approval", verdict="yes", notes=notes)
    why = approval_step.reason_of(judged.need).message
    return CheckStep(step="approval", verdict="waits", notes=[why, *notes])


def _row(draft: Draft) -> dict[str, Any]:
    """The columns that the steps look at."""
    spec = draft.spec
    return {
        "config": spec.config,
        "family": spec.training.model.family if spec.training else spec.kind,
        "slots": spec.resources.slots * spec.resources.nodes,
        "request": request_text(spec.model_dump(mode="json")),
    }


def _refused(step: StepName, refused: Refusal) -> CheckStep:
    problems = refused.errors or [FieldProblem(field=drafts.WHOLE, message=refused.detail)]
    return CheckStep(step=step, verdict="no", problems=problems)


def _sentence(warning: Reason) -> str:
    return f"{warning.message} ({warning.hint})" if warning.hint else warning.message
