"""Saved configurations, teams in job files, and jobs that are deleted."""

import pytest
from people_steps import People

TRAINING = {
    "model": {"family": "pixel_dit"},
    "datasets": [{"path": "/data"}],
    "steps": 9,
    "optimizer": {"learning_rate": 0.1},
}


@pytest.fixture
def people(app_client, admin_headers):
    made = People(app_client, admin_headers)
    made.org("acme", "vision", "audio")
    made.org("beta")
    made.ann = made.user("ann", "researcher", "acme", "vision", "audio")
    made.lea = made.user("lea", "lead", "acme", "audio")
    made.ben = made.user("ben", "researcher", "beta")
    return made


@pytest.fixture
def saved(people):
    body = {"name": "base", "note": "n", "document": {"priority": "low", "training": TRAINING}}
    people.must("POST", "configs", body, people.ann)
    return body


def test_a_job_begins_from_a_config_and_says_the_rest(people, saved):
    job = {"name": "j", "config": "base", "training": {"steps": 3}}
    made = people.must("POST", "jobs", job, people.ann)
    assert (made["config"], made["priority"], made["team"]) == ("base", "low", "vision")
    spec = people.must("GET", f"jobs/{made['id']}", headers=people.ann)["spec"]
    assert (spec["training"]["steps"], spec["training"]["optimizer"]["learning_rate"]) == (3, 0.1)
    batch = people.must("POST", "jobs:batch", {"jobs": [job, job]}, people.ann)
    array = {"spec": job, "grid": {"training.steps": [1, 2]}}
    assert people.must("POST", "job-arrays", array, people.ann)["size"] == 2
    assert len(batch["jobs"]) == 2
    check = people.must("POST", "jobs:check", job, people.ann)
    assert check["verdict"] == "yes"
    assert people.must("POST", "jobs:check", {**job, "config": "no"}, people.ann)["verdict"] == "no"


def test_a_repeat_is_the_same_although_the_config_changed(people, saved):
    job = {"name": "j", "config": "base"}
    headers = {**people.ann, "Idempotency-Key": "k"}
    first = people.must("POST", "jobs", job, headers)
    people.must("PUT", "configs/base", {"document": {"training": TRAINING}}, people.ann)
    assert people.must("POST", "jobs", job, headers)["id"] == first["id"]


def test_configs_are_of_an_organisation(people, saved):
    assert people.must("GET", "configs", headers=people.lea)["items"][0]["created_by"] == "ann"
    assert people.must("GET", "configs", headers=people.ben)["items"] == []
    for method, body in (("GET", None), ("PUT", {"document": {}}), ("DELETE", None)):
        reply = people.ask(method, "configs/base", body, people.ben)
        assert (reply.status_code, reply.json()["detail"]) == (404, "there is no config 'base'")
    refused = people.ask("POST", "jobs", {"name": "j", "config": "base"}, people.ben)
    assert refused.status_code == 422
    people.must("POST", "configs", saved, people.ben)
    assert people.ask("POST", "configs", saved, people.lea).json()["code"] == "name_taken"


def test_a_config_is_changed_by_whoever_made_it(people, saved):
    change = {"document": {"priority": "normal"}, "version": 1}
    assert people.ask("PUT", "configs/base", change, people.lea).status_code == 403
    assert people.ask("DELETE", "configs/base", headers=people.lea).status_code == 403
    changed = people.must("PUT", "configs/base", change, people.ann)
    assert (changed["version"], changed["note"]) == (2, "n")
    assert people.ask("PUT", "configs/base", change, people.ann).status_code == 409
    people.must("DELETE", "configs/base", headers=people.ann)
    assert people.ask("GET", "configs/base", headers=people.ann).status_code == 404


def test_a_config_is_part_of_a_job_file(people):
    def fields(document):
        reply = people.ask("POST", "configs", {"name": "x", "document": document}, people.ann)
        return [each["field"] for each in reply.json()["errors"]]

    assert fields({"prioritty": "low"}) == ["document.prioritty"]
    assert fields({"team": "vision"}) == ["document.team"]
    assert fields({"training": {"steps": -1}}) == ["document.training.steps"]


def test_a_job_is_submitted_as_one_of_the_own_teams(people):
    job = {"name": "j", "noop": {}}
    made = people.must("POST", "jobs", {**job, "team": "audio"}, people.ann)
    assert (made["org"], made["team"]) == ("acme", "audio")
    assert made["id"] in str(people.must("GET", "jobs", headers=people.lea))
    own = people.must("POST", "jobs", job, people.ann)
    assert own["team"] == "vision"
    assert people.ask("GET", f"jobs/{own['id']}", headers=people.lea).status_code == 404
    for team in ("default", "nowhere"):
        reply = people.ask("POST", "jobs", {**job, "team": team}, people.ann)
        assert reply.status_code == 403
        (problem,) = reply.json()["errors"]
        assert problem["field"] == "team"
        assert problem["message"] == f"you are in no team {team!r}; yours: audio, vision"
    array = people.must(
        "POST", "job-arrays", {"spec": {**job, "team": "audio"}, "list": [{"noop.seconds": 1}]},
        people.ann,
    )  # fmt: skip
    assert people.ask("GET", f"job-arrays/{array['id']}", headers=people.lea).status_code == 200


def test_a_job_that_is_over_is_deleted_for_good(people):
    made = people.must("POST", "jobs", {"name": "j", "noop": {}}, people.ann)
    path = f"jobs/{made['id']}"
    assert people.ask("DELETE", path, headers=people.ann).json()["code"] == "not_over"
    people.must("POST", f"{path}/cancel", headers=people.ann)
    assert people.ask("DELETE", path, headers=people.ben).status_code == 404
    people.must("DELETE", path, headers=people.ann)
    for method, rest in (("GET", ""), ("GET", "/logs"), ("POST", "/retry"), ("DELETE", "")):
        assert people.ask(method, path + rest, headers=people.ann).status_code == 404
    assert people.must("GET", "jobs", headers=people.ann)["items"] == []


def test_who_may_only_take_jobs_out_of_the_line(people):
    people.must("PUT", "users/ann/grants/job.cancel.own", {"effect": "deny"})
    made = people.must("POST", "jobs", {"name": "j", "noop": {}}, people.ann)
    path = f"jobs/{made['id']}"
    with people.db.write() as tx:
        from st_controller.store.schema import Job

        tx.session.get(Job, made["id"]).state = "running"
    assert people.ask("POST", f"{path}/cancel", headers=people.ann).status_code == 403
    with people.db.write() as tx:
        tx.session.get(Job, made["id"]).state = "queued"
    assert people.must("POST", f"{path}/cancel", headers=people.ann)["state"] == "cancelled"


def test_an_own_job_goes_first_by_permission(people):
    made = people.must("POST", "jobs", {"name": "j", "noop": {}}, people.ann)
    path, first = f"jobs/{made['id']}/priority", {"override": 50}
    assert people.ask("POST", path, first, people.ann).status_code == 403
    people.must("PUT", "users/ann/grants/job.bypass.queue", {"effect": "allow"})
    assert people.must("POST", path, first, people.ann)["override"] == 50
