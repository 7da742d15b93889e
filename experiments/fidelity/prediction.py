"""Predicts a run, with intervals, before it starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from elastune.experiments.fidelity.draws import Noise
from elastune.experiments.fidelity.measures import RunNumbers
from elastune.experiments.fidelity.simulations import with_noise
from elastune.experiments.fidelity.sitting import Began, Calibration, Unit, node_starts_s, profile_in, read_note
from elastune.experiments.fidelity.trainings import noise_phrase
from elastune.experiments.runs.world import World
from elastune.sim.model.errors import InputError

DRAWS = 60
"""Simulations behind an interval [ours]; its ends then lie within about 3 % of the draws around 5 % and 95 %."""
LEVEL = 0.9
_DIGITS = 7


class Guess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One predicted number.

    Attributes:
        value: median of the draws.
        low: 5 % of the draws are below.
        high: 5 % are above.
        share: of the draws that have this number at all.
    """

    value: float
    low: float
    high: float
    share: float = 1.0


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is believed of a run before it starts.

    Attributes:
        spec_digest: of the run.
        bundle_sha256: of the profile.
        made_at_s: seconds since 1970.
        draws: simulations.
        machine_cv: spread of the machine's own speed, which was known by then.
        is_timed: whether the noise of launches and paces is fitted on a profile's segments; else only the bundle's spread is.
        guesses: by the name of the quantity; see `fidelity.measures`.
        training_noise: where that of the scores is from: the bundle's replicates, or so many trials of earlier runs.
    """

    spec_digest: str
    bundle_sha256: str
    made_at_s: float
    draws: int
    machine_cv: float
    is_timed: bool
    guesses: dict[str, Guess]
    training_noise: str = "none is known"


def predict(
    unit: Unit,
    made_at_s: float,
    calibrations: Sequence[Calibration],
    draws: int = DRAWS,
    trainings: Sequence[float] = (),
) -> Prediction:
    """Predict a run.

    Args:
        unit: the run.
        made_at_s: now, seconds since 1970.
        calibrations: of the sitting so far, that of the profile first.
        draws: simulations.
        trainings: last scores less the recorded ones, of the trials of earlier runs.

    Raises:
        InputError: spec and profile do not fit, or no plan is feasible.
    """
    bundle, records = profile_in(unit.bundle)
    world = World.of(unit.spec, bundle)
    machine_cv = machine_cv_of(calibrations)
    noise = Noise.of(records, bundle.relative_cost.tolist(), bundle.iteration_s or 1.0, machine_cv)
    noise = replace(noise, starts=() if unit.injects else node_starts_s(bundle), trainings=tuple(trainings))
    drawn = [RunNumbers.of(with_noise(world, noise, number)).quantities for number in range(draws)]
    return Prediction(
        unit.spec.digest(),
        bundle.sha256,
        made_at_s,
        draws,
        machine_cv,
        bool(records),
        _guesses(drawn),
        noise_phrase(bundle, len(trainings)),
    )


def machine_cv_of(calibrations: Sequence[Calibration]) -> float:
    """How far the machine's speed was from the profile's so far: the root mean square of the logarithms."""
    if len(calibrations) < 2:
        return 0.0
    first, *others = calibrations
    logs = [math.log(one.iteration_s / first.iteration_s) for one in others]
    return min(math.sqrt(sum(log * log for log in logs) / len(logs)), 1.0)


def _guesses(drawn: Sequence[Mapping[str, float]]) -> dict[str, Guess]:
    found = {}
    for name in dict.fromkeys(name for quantities in drawn for name in quantities):
        known = [quantities[name] for quantities in drawn if name in quantities]
        numbers = np.array([number for number in known if math.isfinite(number)])
        if len(numbers) and (numbers != 0).any():
            low, value, high = np.quantile(numbers, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]).tolist()
            found[name] = Guess(_short(value), _short(low), _short(high), len(numbers) / len(drawn))
    return found


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def sha256_of(unit: Unit) -> str:
    """The digest of a run's prediction, as it lies in its folder."""
    return hashlib.sha256((unit.folder / "prediction.json").read_bytes()).hexdigest()


def prediction_of(unit: Unit) -> Prediction:
    """The prediction of a run, which was there when it began.

    Raises:
        InputError: it is missing, was changed or made later, or is of another run or profile.
    """
    path, began = unit.folder / "prediction.json", read_note(unit.folder / "began.json", Began)
    if not path.is_file():
        raise InputError(f"{path} is missing: a run without its prediction tests nothing; measure it again")
    prediction = read_note(path, Prediction)
    if prediction.made_at_s > began.at_s:
        late_s = prediction.made_at_s - began.at_s
        raise InputError(
            f"{path} was made {late_s:.1f} s after its run began, so it is no prediction; measure it again"
        )
    if sha256_of(unit) != began.prediction_sha256:
        raise InputError(
            f"{path} is not what the run began with: its sha256 was {began.prediction_sha256}; bring it back"
        )
    if prediction.spec_digest != unit.spec.digest():
        raise InputError(f"{path} is of another run: its digest of the spec is {prediction.spec_digest}")
    bundle, _ = profile_in(unit.bundle)
    if prediction.bundle_sha256 != bundle.sha256:
        raise InputError(f"{path} was made from another profile than {unit.bundle}; bring that one back")
    return prediction
