"""Resource rules: deny beats allow, order means nothing, without rules nothing is restricted."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy.asking import asked, folder
from st_controller.domain.policy.resource_rules import (
    CLEAN,
    Asked,
    Effect,
    Resource,
    ResourceRule,
    ResourceRules,
    Subject,
    SubjectKind,
)
from st_controller.domain.scheduling.placement import name_matches
from st_shared.spec.job import JobSpec

ANN = Subject("acme", "vision", "ann", "researcher")
NAMED = (Resource.CONFIG, Resource.DATASET, Resource.FAMILY)
_ids = count()


def rule(effect, resource, pattern, kind="everyone", subject="", org=None):
    return ResourceRule(
        f"rul_{next(_ids):04}",
        org,
        SubjectKind(kind),
        subject,
        Resource(resource),
        pattern,
        Effect(effect),
    )


def verdict(*rules, resource, value, who=ANN):
    return ResourceRules(rules).judge(who, [Asked(Resource(resource), "field", value)])


subjects = st.sampled_from(
    [("everyone", ""), ("role", "researcher"), ("team", "acme/vision"), ("user", "ann"),
     ("role", "lead"), ("team", "acme/audio"), ("team", "other/vision"), ("user", "bob")]
)  # fmt: skip
patterns = st.text("ab*?", min_size=1, max_size=3)
rules = st.builds(
    lambda effect, resource, pattern, subject, org: rule(effect, resource, pattern, *subject, org),
    st.sampled_from(Effect),
    st.sampled_from(Resource),
    patterns,
    subjects,
    st.sampled_from([None, "acme", "other"]),
)
values = st.text("ab", min_size=0, max_size=3)


def binds(found):
    return found.applies_to(ANN)


@given(st.lists(rules, max_size=8), st.sampled_from(NAMED), values)
def test_the_verdict_is_that_of_the_definition(found, resource, value):
    mine = [each for each in found if binds(each) and each.resource is resource]
    hit = [each for each in mine if name_matches(each.pattern, value)]
    allows = [each for each in mine if each.effect is Effect.ALLOW]
    denied = any(each.effect is Effect.DENY for each in hit)
    open_to = not allows or any(each.effect is Effect.ALLOW for each in hit)
    said = verdict(*found, resource=resource, value=value)
    assert bool(said.violations) == (denied or not open_to)


@given(st.lists(rules, max_size=8), st.randoms(), st.sampled_from(Resource), values)
def test_the_order_of_rules_changes_nothing(found, random, resource, value):
    shuffled = random.sample(found, len(found))
    one = verdict(*found, resource=resource, value=value)
    assert one == verdict(*shuffled, resource=resource, value=value)


@given(st.lists(rules, max_size=6), st.sampled_from(NAMED), values)
def test_a_deny_beats_any_allow(found, resource, value):
    deny = rule("deny", resource, "*")
    said = verdict(*found, deny, resource=resource, value=value)
    assert deny.id in said.violations[0].rules


@given(st.lists(rules.filter(lambda each: not binds(each)), max_size=8), values)
def test_rules_of_others_restrict_nobody(found, value):
    for resource in Resource:
        assert verdict(*found, resource=resource, value=value) == CLEAN


requests = st.lists(patterns, min_size=1, max_size=3).map("|".join)


@given(st.lists(rules, max_size=6), requests, values)
def test_a_request_is_narrowed_to_exactly_what_is_allowed(found, request, name):
    """Whatever joins later: a job gets what it asked for and the rules permit, and nothing else."""
    said = verdict(*found, resource="accelerator", value=request)
    permitted = not verdict(
        *[_named(each) for each in found], resource="family", value=name
    ).violations
    wanted = name_matches(request, name) and permitted
    if said.violations:
        assert not wanted
        return
    bounds = said.bounds.get(Resource.ACCELERATOR)
    narrowed = f"{request}&{bounds.group}" if bounds else request
    assert name_matches(narrowed, name) == wanted


def _named(each):
    """The same rule of a resource that is named outright, or of one that is not looked at."""
    resource = "family" if each.resource is Resource.ACCELERATOR else "config"
    return rule(each.effect, resource, each.pattern, each.subject_kind, each.subject, each.org)


def test_without_rules_nothing_is_restricted():
    for resource in Resource:
        assert verdict(resource=resource, value="anything") == CLEAN


def test_a_refusal_names_field_rule_and_note():
    deny = ResourceRule(
        "rul_1", "acme", SubjectKind.TEAM, "acme/vision", Resource.FAMILY, "flux*", Effect.DENY,
        "ask Eve",
    )  # fmt: skip
    (found,) = verdict(deny, resource="family", value="flux1").violations
    assert found.field == "field"
    assert found.rules == ("rul_1",)
    assert found.message == (
        "family 'flux1' is denied by rule rul_1: team acme/vision of acme: deny family flux*"
        " (ask Eve)"
    )


def test_a_job_without_a_config_is_not_among_allowed_configs():
    only = rule("allow", "config", "approved-*")
    (found,) = verdict(only, resource="config", value="").violations
    assert "a job without a saved config" in found.message


def test_the_default_request_is_narrowed_and_not_refused():
    said = verdict(rule("deny", "accelerator", "h100*"), resource="accelerator", value="*")
    assert not said.violations
    assert said.bounds[Resource.ACCELERATOR].group == "!h100*"


@pytest.mark.parametrize("asks", ["h100", "H100-SXM", "h100*", "h100*|h100-nvl"])
def test_what_could_only_be_denied_is_refused(asks):
    deny = rule("deny", "accelerator", "h100*")
    assert verdict(deny, resource="accelerator", value=asks).violations


def test_rules_that_cannot_matter_leave_a_request_as_it_is():
    found = verdict(
        rule("deny", "accelerator", "h100*"),
        rule("allow", "accelerator", "a100*"),
        resource="accelerator",
        value="a100-40gb",
    )
    assert found == CLEAN


def spec(**training):
    body = {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": "/d"}],
        "steps": 1,
        "adapter": {"kind": "full"},
        **training,
    }
    return JobSpec.model_validate({"name": "n", "training": body})


def test_detours_of_a_path_are_no_way_around_a_rule():
    job = spec(datasets=[{"path": "/data/public/../secret//x/"}])
    (found,) = [wish for wish in asked(job) if wish.resource is Resource.DATASET]
    assert (found.field, found.value) == ("training.datasets.0.path", "/data/secret/x")
    said = ResourceRules((rule("allow", "dataset", "/data/public/*"),)).judge(ANN, [found])
    assert said.violations


@pytest.mark.parametrize("path", ["//data/secret", "/./data/secret", "/data/x/../secret/"])
def test_a_path_has_one_spelling(path):
    assert folder(path) == "/data/secret"


def test_a_relative_path_is_refused_where_datasets_are_restricted():
    job = spec(datasets=[{"path": "../../data/secret"}])
    said = ResourceRules((rule("deny", "dataset", "/data/secret*"),)).judge(ANN, asked(job))
    assert [found.field for found in said.violations] == ["training.datasets.0.path"]


def test_jobs_that_train_nothing_have_a_family_too():
    command = JobSpec.model_validate({"name": "n", "command": {"run": "true"}})
    only = ResourceRules((rule("allow", "family", "flux*"),))
    assert [found.field for found in only.judge(ANN, asked(command)).violations] == ["command"]


def published(**place):
    return [
        (wish.field.removeprefix("training.publish.0"), wish.value)
        for wish in asked(spec(publish=[place]))
        if wish.resource is Resource.OUTPUT_PATH
    ]


def test_places_that_a_job_publishes_to_are_named_with_their_server():
    assert published(kind="huggingface", repository="lab/x") == [("", "hf://lab/x")]
    assert published(kind="s3", uri="s3://ours/a/b/") == [("", "s3://ours/a/b")]
    assert published(kind="s3", uri="s3://ours/a", endpoint_url="https://minio.lab:9000/") == [
        ("", "s3://ours/a"),
        (".endpoint_url", "https://minio.lab:9000/ours/a"),
    ]


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ({"uri": "s3://ours/public/x"}, None),
        ({"uri": "s3://ours/secret/x"}, ""),
        ({"uri": "s3://theirs/../ours/public/x"}, ""),
        ({"uri": "s3://ours/secret/../public/x"}, ""),
        ({"uri": "s3://ours/public//x"}, ""),
        ({"uri": "s3://ours/public/x//"}, ""),
        ({"uri": "s3://ours/public"}, None),  # what is published lies below it
        ({"uri": "s3://ours/public/x", "endpoint_url": "https://elsewhere"}, ".endpoint_url"),
    ],
)
def test_a_job_publishes_to_what_is_allowed_alone(place, field):
    job = spec(publish=[{"kind": "s3", **place}])
    only = ResourceRules((rule("allow", "output_path", "s3://ours/public/*"),))
    found = [each.field for each in only.judge(ANN, asked(job)).violations]
    assert found == ([] if field is None else [f"training.publish.0{field}"])


@pytest.mark.parametrize(
    ("server", "is_allowed"),
    [
        ("https://minio.lab", True),
        ("HTTPS://minio.lab/", None),
        ("https://MINIO.lab/", True),
        ("https://minio.lab:9000/a", True),
        ("http://[::1]:9000", True),
        ("https://minio.lab:443", False),
        ("http://minio.lab:80", False),
        ("https://minio.lab.", False),
        ("https://minio.lab//a", False),
        ("https://minio.lab/a/../b", False),
        ("https://minio.lab/%2e%2e", False),
        ("https://minio.lab/?a", False),
        ("https://minio.lab#a", False),
        ("https://minio.lab\\a", False),
        ("https://m\u0456nio.lab", False),
    ],
)
def test_a_server_is_written_in_one_way_where_rules_speak_of_places(server, is_allowed):
    place = {"kind": "s3", "uri": "s3://ours/a", "endpoint_url": server}
    if is_allowed is None:
        with pytest.raises(ValueError, match="endpoint_url"):
            spec(publish=[place])
        return
    no_deny = ResourceRules((rule("deny", "output_path", "https://other/*"),))
    found = [each.field for each in no_deny.judge(ANN, asked(spec(publish=[place]))).violations]
    assert found == ([] if is_allowed else ["training.publish.0.endpoint_url"])


def test_a_place_on_another_server_is_allowed_as_both():
    place = {"kind": "s3", "uri": "s3://ours/a", "endpoint_url": "https://minio.lab"}
    there, server = (
        rule("allow", "output_path", glob) for glob in ("s3://ours/*", "https://minio.lab/ours/*")
    )
    fields = [
        [found.field for found in ResourceRules(only).judge(ANN, asked(job)).violations]
        for job in [spec(publish=[place])]
        for only in ((there,), (server,), (there, server))
    ]
    assert fields == [["training.publish.0.endpoint_url"], ["training.publish.0"], []]


def test_a_prefix_is_denied_with_what_is_below_it():
    none = ResourceRules((rule("deny", "output_path", "s3://ours/secret/*"),))
    for uri in ("s3://ours/secret", "s3://ours/secret/", "s3://ours/secret/x"):
        job = spec(publish=[{"kind": "s3", "uri": uri}])
        assert none.judge(ANN, asked(job)).violations


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "HF_ENDPOINT"])
def test_no_secret_leads_what_is_published_elsewhere(variable):
    only = ResourceRules((rule("allow", "output_path", "*"),))

    def fields(**place):
        job = spec(publish=[{"kind": "s3", "uri": "s3://ours/a", **place}])
        led = job.model_copy(update={"secrets": {variable: "x", "AWS_ACCESS_KEY_ID": "y"}})
        return [found.field for found in only.judge(ANN, asked(led)).violations]

    assert fields() == [f"secrets.{variable}"]
    assert fields(endpoint_url="https://minio.lab") == []
