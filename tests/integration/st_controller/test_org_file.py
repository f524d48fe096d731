"""A file of organisations, roles, rules, quotas and prices, applied again and again."""

import json

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError
from sqlalchemy import func, select

from st_controller.cli import main
from st_controller.errors import InvalidRequest, NotFound
from st_controller.services.arrangement.file import apply, operator
from st_controller.store.schema import (
    ApprovalRule,
    AuditEntry,
    CustomRole,
    Organisation,
    PriceRow,
    QuotaRow,
    ResourceRule,
    Team,
)
from st_shared.protocol.org_file import OrgFile

FILE = """
organisations:
  - {slug: lab, name: The lab, time_zone: Europe/Berlin, teams: [{slug: vision, name: Vision}]}
roles:
  - {slug: keeper, name: Keeper, permissions: [job.view.all], reach: org, rank: 60}
resource_rules:
  - {resource: accelerator, pattern: "b200*", effect: deny, subject_kind: role, subject: researcher}
  - {resource: dataset, pattern: "/data/*", effect: allow, subject_kind: team, subject: lab/vision}
approval_rules:
  - {name: big, org: lab, condition: slot_hours_over, amount: 100, approver: keeper,
     exempt_roles: [lead, admin]}
quotas:
  - {path: lab, kind: cost_monthly, amount: 1000}
  - {path: lab/vision, kind: cost_monthly, amount: 400}
prices:
  - {accelerator: "h100*", amount: "2.50"}
"""
TABLES = (Organisation, Team, CustomRole, ResourceRule, ApprovalRule, QuotaRow, PriceRow)


def read(text=FILE, **changes):
    return OrgFile.model_validate({**yaml.safe_load(text), **changes})


@pytest.fixture
def put(steps):
    def run(wanted, **how):
        return [change.words for change in apply(steps.db, steps.admin, wanted, **how)]

    return run


def counts(steps):
    with steps.db.read() as session:
        return [session.scalar(select(func.count()).select_from(t)) for t in (*TABLES, AuditEntry)]


def test_a_file_is_made_true_once(steps, put):
    made = put(read())
    assert [line[:2] for line in made] == ["+ "] * 9
    assert [line.split(" ", 2)[1] for line in made] == [
        "organisation", "team", "role", "resource", "resource", "approval", "price", "quota",
        "quota",
    ]  # fmt: skip
    before = counts(steps)
    assert put(read()) == []
    assert put(read(), prune=True) == []
    assert counts(steps) == before


def test_a_dry_run_says_the_same_and_changes_nothing(steps, put):
    before = counts(steps)
    would = put(read(), dry_run=True)
    assert counts(steps) == before
    assert put(read()) == would


def test_what_differs_is_changed_and_told(put):
    put(read())
    other = FILE.replace("The lab", "Lab").replace("amount: 100,", "amount: 50,")
    other = other.replace("rank: 60", "rank: 70").replace('"2.50"', '"3"').replace("Vision", "Eyes")
    assert put(read(other)) == [
        "~ organisation lab (name: The lab -> Lab)",
        "~ team lab/vision (name: Vision -> Eyes)",
        "~ role keeper (rank: 60 -> 70)",
        "~ approval rule big (amount: 100 -> 50)",
        "~ price */h100* (amount: 2.5 -> 3)",
    ]
    assert put(read(other)) == []


@pytest.mark.parametrize(("lab", "vision"), [(2000, 1500), (300, 200), (500, 500)])
def test_limits_move_up_and_down_together(put, lab, vision):
    put(read())
    quotas = [
        {"path": "lab/vision", "kind": "cost_monthly", "amount": vision},
        {"path": "lab", "kind": "cost_monthly", "amount": lab},
    ]
    assert len(put(read(quotas=quotas))) == 2
    assert put(read(quotas=quotas)) == []


def test_limits_of_roles_are_told_apart_from_those_that_all_share(put):
    pool = {"path": "lab", "kind": "running_jobs", "amount": 9}
    each = {**pool, "role": "researcher", "amount": 5}
    assert put(read(quotas=[each, pool]))[-2:] == [
        "+ quota lab running_jobs block",
        "+ quota lab researcher running_jobs block",
    ]
    lower = [{**pool, "amount": 3}, {**each, "amount": 2}]
    assert (
        put(read(quotas=lower), dry_run=True)
        == put(read(quotas=lower))
        == [
            "~ quota lab researcher running_jobs block (amount: 5 -> 2)",
            "~ quota lab running_jobs block (amount: 9 -> 3)",
        ]
    )
    assert put(read(quotas=[lower[0]]), prune=True) == ["- quota lab researcher running_jobs block"]


def test_what_is_not_in_the_file_stays_unless_it_is_pruned(steps, put):
    put(read())
    assert put(OrgFile()) == []
    gone = put(OrgFile(), prune=True)
    assert sorted(line[:2] for line in gone) == ["- "] * 6
    assert counts(steps)[3:7] == [0, 0, 0, 0]
    assert counts(steps)[:3] == [2, 3, 1]  # organisations, teams and roles are never removed


def test_one_part_that_cannot_be_undoes_all(steps, put):
    before = counts(steps)
    wrong = read(FILE.replace("approver: keeper", "approver: nobody"))
    with pytest.raises(InvalidRequest):
        put(wrong)
    assert counts(steps) == before


def test_it_is_done_in_the_name_of_an_admin(steps):
    with steps.db.read() as session:
        assert operator(session, None).username == "root"
        assert operator(session, "root").username == "root"
    steps.user("ann", "researcher")
    with steps.db.read() as session, pytest.raises(NotFound):
        operator(session, "ann")


def test_a_key_that_is_not_known_is_named():
    with pytest.raises(ValidationError) as wrong:
        OrgFile.model_validate({"quotas": [{"path": "lab", "kind": "cost", "amount": 1}]})
    assert wrong.value.errors()[0]["loc"] == ("quotas", 0, "kind")


def test_the_command(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [*arguments, "--data", str(tmp_path / "data")])

    file = tmp_path / "org.yaml"
    file.write_text(FILE)
    assert run("init").exit_code == 0
    refused = run("apply", str(file))
    assert refused.exit_code == 1
    assert "there is no admin yet" in refused.output
    password = "correct horse battery"
    added = CliRunner().invoke(
        main,
        ["user", "add", "root", "--role", "admin", "--password-stdin", "--data",
         str(tmp_path / "data")],
        input=password,
    )  # fmt: skip
    assert added.exit_code == 0, added.output
    dry = json.loads(run("apply", str(file), "--dry-run", "--json").output)
    assert (dry["dry_run"], len(dry["changes"])) == (True, 9)
    assert "9 changes made" in run("apply", str(file)).output
    assert "nothing to change" in run("apply", str(file)).output
    file.write_text("quotas: [{path: lab, kind: cost_monthly, amount: 5, actoin: warn}]")
    wrong = run("apply", str(file))
    assert wrong.exit_code == 1
    assert "quotas.0.actoin" in wrong.output
