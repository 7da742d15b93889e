"""Names: of shipped specs, of folders, and of data that lies elsewhere."""

import shutil
from pathlib import Path

import pytest

from elastune import RunSpec
from elastune.experiments.comparisons.comparison import compare
from elastune.experiments.files import folder_name
from elastune.experiments.spec.places import (
    CATALOG,
    data_folders,
    find_data,
    known_bundles,
    name_in_specs,
    spec_file,
    spec_names,
)
from elastune.sim.model.errors import InputError


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path, monkeypatch):
    monkeypatch.delenv("ELASTUNE_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def configure(text):
    Path("config/elastune").mkdir(parents=True)
    Path("config/elastune/config.yaml").write_text(text)


@pytest.mark.parametrize("name", ["headline", "placement", "spot", "stragglers", "tight"])
def test_a_shipped_spec_has_a_name(name):
    assert RunSpec.load(name) == RunSpec.load(CATALOG / f"{name}.yaml")


def test_claims_and_workloads_are_no_specs():
    assert spec_names() == ("headline", "placement", "spot", "stragglers", "tight")


def test_a_file_of_that_name_comes_first(tmp_path):
    (tmp_path / "headline").write_text("job: {}")
    assert spec_file("headline") == Path("headline")


def test_a_misspelt_name_is_told_the_nearest():
    with pytest.raises(InputError, match=r"no run spec 'headlin'; did you mean 'headline'\? known: .*give a YAML file"):
        RunSpec.load("headlin")


def test_a_missing_file_is_a_missing_file():
    with pytest.raises(InputError, match=r"^headlin\.yaml: cannot be read"):
        RunSpec.load("headlin.yaml")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../../evil", "entity/project", "a\\b", ".hidden", "/etc", "a\0b", "a\nb", "x" * 201]
)
def test_a_name_is_one_level_of_a_folder(name):
    with pytest.raises(InputError, match=r"^--name is .* must be one name"):
        folder_name(name, "--name")


@pytest.mark.parametrize("name", ["mnist5k-cnn", "meine Läufe", "v1.2", "run_3", "[red]"])
def test_other_names_are_kept(name):
    assert folder_name(name) == name


def test_data_is_found_by_option_then_variable_then_configuration(tmp_path, monkeypatch):
    assert data_folders() == ()
    configure("data: [/one, two]")
    assert data_folders() == (Path("/one"), tmp_path / "config/elastune/two")
    monkeypatch.setenv("ELASTUNE_DATA", "/three:/four")
    assert data_folders() == (Path("/three"), Path("/four"))
    assert data_folders(Path("/five")) == (Path("/five"),)


@pytest.mark.parametrize("text", ["[1]", "dta: [/one]", "data: {a: 1}", "data: [1]", "data: ["])
def test_a_wrong_configuration_names_the_file(text):
    configure(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        data_folders()


def test_an_empty_configuration_says_nothing():
    configure("")
    assert data_folders() == ()


def test_the_first_folder_that_has_it_is_taken(tmp_path):
    (tmp_path / "b" / "x").mkdir(parents=True)
    assert find_data("x", [tmp_path / "a", tmp_path / "b"]) == tmp_path / "b" / "x"
    assert find_data("y", [tmp_path / "b"]) is None


def test_a_bundle_of_ones_own_has_a_name_in_its_folder_and_never_replaces_a_shipped_one(tmp_path, monkeypatch):
    shipped = Path(__file__).parents[2] / "traces" / "data" / "bundles"
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "results" / "bundles"
    shutil.copytree(shipped / "digits-mlp", own / "mine")
    shutil.copytree(shipped / "digits-mlp", own / "mnist5k-cnn")
    assert {"mine", "digits-mlp", "mnist5k-cnn"} <= set(known_bundles())
    assert RunSpec.load("headline", ["workload.bundle=mine"]).bundle().trials == 256
    assert RunSpec.load("headline", ["workload.bundle=mnist5k-cnn"]).bundle().trials == 128
    assert name_in_specs(Path("results/bundles/mine")) == "mine"
    assert name_in_specs(Path("results/bundles/mnist5k-cnn")) == "results/bundles/mnist5k-cnn"
    compared = compare(RunSpec.load("headline", ["workload.bundle=mine"]), "sha-fixed", 1, jobs=1)
    assert compared.results["status"].tolist() == ["done"]


def test_a_bundle_in_a_data_folder_has_a_name(tmp_path, monkeypatch):
    shipped = Path(__file__).parents[2] / "traces" / "data" / "bundles" / "digits-mlp"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(shipped)
    monkeypatch.setenv("ELASTUNE_DATA", str(tmp_path / "data"))
    spec = RunSpec.load("headline", ["workload.bundle=mine"])
    assert spec.bundle().sha256 == RunSpec.load("headline", ["workload.bundle=digits-mlp"]).bundle().sha256
    monkeypatch.delenv("ELASTUNE_DATA")
    with pytest.raises(InputError, match="no bundle 'mine'"):
        spec.bundle()
