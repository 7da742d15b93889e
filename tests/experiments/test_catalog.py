"""The catalogue's files: every claim is there, fits its workloads, and what is wrong with a file is told by name."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from elastune.experiments.claims import load_claims
from elastune.experiments.claims.drawing import prepare
from elastune.experiments.claims.entries import CATALOG, FIRST_SEED, load_workloads
from elastune.experiments.claims.figures import FIGURES
from elastune.experiments.claims.made import MADE, make_bundle
from elastune.experiments.claims.plans import plans_of
from elastune.experiments.claims.sweeps import merged, sweeps_of
from elastune.experiments.figures.tables import MOST_POLICIES
from elastune.sim.model.errors import InputError
from elastune.traces import load_bundle
from elastune.traces.bundles.synthetic import hypersched_toy

CLAIMS = (
    *(f"S{number}" for number in range(1, 9)),
    *(f"R{number}" for number in range(1, 12)),
    *("D1", "D2", "D3", "F1", "H1", "V1"),
)
NOWHERE = [Path("/nowhere")]
claims_that_ship, workloads_that_ship = cache(load_claims), cache(load_workloads)


def sweeps_at(size, claim_id, tmp_path, data=NOWHERE):
    claim, workloads = claims_that_ship()[claim_id], workloads_that_ship()
    found = [sweeps_of(claim, name, size, workloads, results=tmp_path, data=data) for name in claim.experiments]
    return [sweep for sweeps, _ in found for sweep in sweeps], [part for _, left_out in found for part in left_out]


def test_every_claim_has_a_file():
    assert tuple(claims_that_ship()) == CLAIMS


@pytest.mark.many(fast=4)
@pytest.mark.parametrize("claim_id", CLAIMS)
def test_every_cell_of_the_smoke_size_is_a_run(claim_id, tmp_path):
    sweeps, left_out = sweeps_at("smoke", claim_id, tmp_path)
    claim = claims_that_ship()[claim_id]
    for sweep in sweeps:
        assert sweep.sweep.cells()
        assert min(sweep.sweep.seeds) == FIRST_SEED["smoke"]
    for name in claim.plans:
        assert plans_of(claim, name, "smoke", results=tmp_path).jobs
    assert sweeps or left_out or claim.plans or claim.trainings or claim.real_runs


@pytest.mark.many(fast=2)
@pytest.mark.parametrize("claim_id", CLAIMS)
def test_the_full_size_draws_a_quarter_of_a_pool_at_most_on_seeds_of_its_own(claim_id, tmp_path, shared_data):
    sweeps, left_out = sweeps_at("full", claim_id, tmp_path, [shared_data])
    assert not left_out
    for sweep in sweeps:
        if sweep.makes is not None:
            make_bundle(sweep.makes.name, sweep.makes.parent)
        bundle = load_bundle(str(sweep.sweep.base["workload"]["bundle"]))
        job = sweep.sweep.cells()[0].spec.job.tuning_job(bundle.direction)
        assert job.trials <= bundle.trials // 4
        bundle.require_covers(job)
        assert min(sweep.sweep.seeds) == FIRST_SEED["full"] >= 50_000


def test_pools_are_as_large_as_the_catalogue_says(shared_data, tmp_path):
    for workload in load_workloads().values():
        at = {"shipped": workload.bundle, "data": shared_data / workload.bundle, "made": tmp_path / workload.bundle}
        if workload.origin == "made":
            make_bundle(workload.bundle, tmp_path)
        assert load_bundle(at[workload.origin]).trials == workload.pool


def test_deadlines_and_budgets_are_multiples_of_what_one_configuration_takes(tmp_path):
    sweeps, _ = sweeps_at("full", "S1", tmp_path)
    grid = next(sweep for sweep in sweeps if (sweep.experiment, sweep.workload) == ("grid", "digits-mlp"))
    # 81 iterations of 20 s at 12.24 USD/h for 4 GPUs: 1,620 s and 1.377 USD.
    assert (grid.units.deadline_s, grid.units.budget_usd) == (1620, pytest.approx(1.377))
    assert grid.sweep.axes["job.deadline_s"] == [405, 648, 972, 1296, 1944, 3888]
    assert grid.sweep.axes["job.budget_usd"] == [4.131, 6.885, 13.77, 27.54, 55.08]


def test_what_is_not_there_is_left_out_and_told(tmp_path):
    sweeps, left_out = sweeps_at("full", "S1", tmp_path)
    assert {sweep.workload for sweep in sweeps} == {"digits-mlp", "mnist5k-cnn"}
    assert [part.workload for part in left_out] == [
        "deepobs-cifar10",
        "taskset-lstm128",
        "taskset-vrnn64",
        "algoperf-wmt",
    ]
    assert left_out[0].reason == "bundles/deepobs-cifar10-3c3d is not in /nowhere"


def test_everything_that_can_be_drawn_is_asked_for_and_nothing_else(tmp_path):
    asked = prepare([], "smoke", results=tmp_path, data=NOWHERE).figures
    # `elastune results DIR --figure NAME` draws these three of any sweep; what they show is drawn of S1 one by one.
    of_any_sweep = {"comparison", "score-and-cost", "score-over-time-and-cost"}
    assert {figure.drawn.draw for figure in asked} == FIGURES.keys() - of_any_sweep


def test_a_picture_shows_eight_policies_at_most(tmp_path):
    for asked in prepare([], "smoke", results=tmp_path, data=NOWHERE).figures:
        policies = (
            ()
            if asked.drawn.experiment not in asked.claim.experiments
            else asked.claim.experiments[asked.drawn.experiment].policies
        )
        where = asked.drawn.where or ""
        named = [policy for policy in policies if f"'{policy}'" in where]
        assert len(named or policies) <= MOST_POLICIES, asked.name


def test_the_page_of_the_catalogue_names_every_figure():
    table = [
        line
        for line in (CATALOG.resolve().parents[1] / "docs" / "catalog.md").read_text().splitlines()
        if line[:1] == "|"
    ]
    told = {name.strip() for line in table for name in line.split("|")[-2].split(",")}
    assert {name for claim in claims_that_ship().values() for name in claim.figures} <= told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draw": "profile"}, r"S1: figures\.s1-profiles: there is no figure 'profile'; did you mean 'profiles'\?"),
        ({"draw": "differences", "options": {"references": "seer"}}, r"no option of differences 'references'"),
        ({"where": "bundle_nam == 'a'"}, r"there is no column 'bundle_nam'; did you mean 'bundle_name'\?"),
        ({"draw": "score-grid", "options": {"measure": "regrets"}}, r"no measure 'regrets'; did you mean 'regret'\?"),
        ({"draw": "sensitivity", "options": {"x": "cloud.rescale"}}, r"no column 'cloud\.rescale'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_runs(catalog, tmp_path, change, message):
    folder = catalog(lambda d: d["figures"]["s1-profiles"].update(change))
    with pytest.raises(InputError, match=message):
        prepare(["s1-profiles"], "smoke", results=tmp_path, data=NOWHERE, folder=folder)
    prepare(["s1-free"], "smoke", results=tmp_path, data=NOWHERE, folder=folder)


def test_stages_take_the_place_of_numbers_that_say_the_same():
    together = merged({"job": {"trials": 8, "max_iterations": 4, "exact": True}}, {"job": {"stages": [[2, 1]]}})
    assert together == {"job": {"exact": True, "stages": [[2, 1]]}}


def test_the_toy_workload_is_hypersched_s_formula():
    toy = hypersched_toy(400, 50, seed=1)
    rows = np.array([[configuration[name] for name in ("b0", "b1", "b2")] for configuration in toy.configurations])
    steps = np.arange(1, 51)
    clean = 1 / (rows[:, :1] * steps / 100 + 0.1 * rows[:, 1:2] + 0.5) + 0.01 * rows[:, 2:]
    noise = (2 - 2 * toy.scores) - clean
    assert noise.min() > -1e-12
    # A half-normal of standard deviation 0.005 has the mean 0.005 sqrt(2 / pi); 20,000 draws of it.
    assert noise.mean() == pytest.approx(0.005 * np.sqrt(2 / np.pi), rel=0.03)
    assert rows[:, 0].mean() == pytest.approx(0.1, rel=0.2)


def test_a_made_bundle_is_written_once_and_read_back(tmp_path):
    at = make_bundle("hypersched-toy", tmp_path)
    written_s = (at / "curves.parquet").stat().st_mtime_ns
    assert make_bundle("hypersched-toy", tmp_path) == at
    assert (at / "curves.parquet").stat().st_mtime_ns == written_s
    np.testing.assert_array_equal(load_bundle(at).scores, MADE["hypersched-toy"]().scores)


@pytest.fixture
def catalog(tmp_path):
    """Writes a copy of one claim's file, changed, with the workloads beside it; returns the folder."""

    def write(change, claim_id="S1"):
        folder = tmp_path / "catalog"
        folder.mkdir(exist_ok=True)
        shutil.copy(CATALOG / "workloads.yaml", folder)
        document = yaml.safe_load((CATALOG / f"{claim_id}.yaml").read_text())
        change(document)
        (folder / f"{claim_id}.yaml").write_text(yaml.safe_dump(document))
        return folder

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(clam="x"), r"S1\.yaml: unknown key clam; did you mean claim\?"),
        (
            lambda d: d["experiments"]["grid"]["full"].update(seds=3),
            r"unknown key experiments\.grid\.full\.seds; did you mean experiments\.grid\.full\.seeds\?",
        ),
        (
            lambda d: d["experiments"]["grid"].update(workloads=["digits"]),
            r"no workload 'digits'; did you mean 'digits-mlp'\?",
        ),
        (lambda d: d["endpoint"].update(measure="regrets"), r"no measure 'regrets'; did you mean 'regret'\?"),
        (
            lambda d: d["figures"]["s1-profiles"].update(experiment="grids"),
            r"no experiment 'grids'; did you mean 'grid'\?",
        ),
        (
            lambda d: d["experiments"]["grid"]["smoke"].update(axes={"policies": ["seer"]}),
            r"smoke\.axes changes, 'policies'; did you mean 'policy'\?",
        ),
        (
            lambda d: d["endpoint"]["contrasts"][0].update(policies=["sha-fixe"]),
            r"no policy of grid 'sha-fixe'; did you mean 'sha-fixed'\?",
        ),
        (
            lambda d: d["endpoint"]["contrasts"][0].update(by=["workload.scalings"]),
            r"no column 'workload\.scalings'; did you mean 'workload\.scaling'\?",
        ),
        (lambda d: d.update(id="S9"), r"id is 'S9', but must be the file's name, S1"),
    ],
)
def test_a_wrong_file_is_told_by_name_with_the_nearest_key(catalog, change, message):
    with pytest.raises(InputError, match=message):
        load_claims(catalog(change))


def test_sizes_of_plans_give_nothing_that_would_be_ignored(catalog):
    with pytest.raises(InputError, match=r"R8\.yaml: smoke: of plans a size gives seeds and axes, but no workloads"):
        load_claims(catalog(lambda d: d["plans"]["machines"]["smoke"].update(deadlines=[0.5]), "R8"))


def test_a_run_that_draws_more_than_a_quarter_of_a_pool_is_refused(catalog, tmp_path):
    claims = load_claims(catalog(lambda d: d["experiments"]["grid"].update(base={"job": {"trials": 65}})))
    with pytest.raises(
        InputError, match=r"S1: grid: digits-mlp: .* draws 65 of 256 configurations; with more than a quarter"
    ):
        sweeps_of(claims["S1"], "grid", "full", load_workloads(), results=tmp_path, data=NOWHERE)
