import pytest
from pydantic import ValidationError

from st_shared.spec import JobSpec


def job(secrets):
    return JobSpec.model_validate({"name": "a", "noop": {}, "secrets": secrets})


def test_variables_are_given_names_of_secrets():
    assert job({"HF_TOKEN": "hub", "_A1": "a.b-c"}).secrets == {"HF_TOKEN": "hub", "_A1": "a.b-c"}
    assert job({}).secrets == {}


@pytest.mark.parametrize(
    "variable",
    ["PATH", "LD_PRELOAD", "PYTHONPATH", "ST_API_KEY", "CUDA_VISIBLE_DEVICES", "BASH_ENV"],
)
def test_a_secret_does_not_change_how_programs_run(variable):
    with pytest.raises(ValidationError, match="choose another variable"):
        job({variable: "hub"})


@pytest.mark.parametrize("variable", ["hf_token", "1A", "A-B", "A B", "", "A" * 65])
def test_names_of_variables_are_plain(variable):
    with pytest.raises(ValidationError):
        job({variable: "hub"})


@pytest.mark.parametrize("name", ["Hub", "", "a/b", "-a", "a" * 65])
def test_names_of_secrets_are_plain(name):
    with pytest.raises(ValidationError):
        job({"HF_TOKEN": name})
