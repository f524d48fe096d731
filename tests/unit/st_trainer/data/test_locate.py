from pathlib import Path

import pytest

from st_shared.spec import DatasetSpec
from st_trainer.data.locate import locate
from st_trainer.errors import BadDataError


def test_a_name_is_looked_up_in_what_is_given_then_in_the_folder_of_datasets(tmp_path):
    for name in ("given", "root/a", "root/b"):
        (tmp_path / name).mkdir(parents=True)
    datasets = [DatasetSpec(name="a"), DatasetSpec(name="b"), DatasetSpec(path=str(tmp_path))]
    found = locate(datasets, {"a": tmp_path / "given"}, {"ST_DATASETS_DIR": str(tmp_path / "root")})
    assert found == [tmp_path / "given", tmp_path / "root/b", tmp_path]


def test_without_a_variable_the_folder_of_datasets_is_below_the_working_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".st/datasets/a").mkdir(parents=True)
    assert locate([DatasetSpec(name="a")], {}, {}) == [Path(".st/datasets/a")]


def test_every_missing_folder_is_named_with_its_field_and_the_mend(tmp_path):
    datasets = [DatasetSpec(name="digits"), DatasetSpec(path=str(tmp_path / "none"))]
    with pytest.raises(BadDataError) as caught:
        locate(datasets, {}, {"ST_DATASETS_DIR": str(tmp_path)})
    assert str(caught.value).splitlines() == [
        f"training.datasets.0.name: no folder {tmp_path}/digits; give --dataset digits=FOLDER",
        f"training.datasets.1.path: no folder {tmp_path}/none; give an existing folder",
    ]


def test_what_is_to_be_fetched_is_no_folder_and_a_table_may_be_one_file(tmp_path):
    (tmp_path / "table.csv").touch()
    (tmp_path / "saved").mkdir()
    datasets = [
        DatasetSpec(path="s3://bucket/prefix"),
        DatasetSpec(path="owner/pictures", format="huggingface"),
        DatasetSpec(path=str(tmp_path / "saved"), format="huggingface"),
        DatasetSpec(path=str(tmp_path / "table.csv"), format="csv"),
    ]
    assert locate(datasets, {}, {}) == [
        "s3://bucket/prefix",
        "owner/pictures",
        tmp_path / "saved",
        tmp_path / "table.csv",
    ]


@pytest.mark.parametrize(
    ("path", "format_"), [("table.csv", "files"), ("/none/saved", "huggingface"), ("x", "csv")]
)
def test_a_file_is_no_folder_of_files_and_what_is_missing_is_told(tmp_path, path, format_):
    (tmp_path / "table.csv").touch()
    with pytest.raises(BadDataError, match=r"training\.datasets\.0\.path: no folder"):
        locate([DatasetSpec(path=str(tmp_path / path), format=format_)], {}, {})
