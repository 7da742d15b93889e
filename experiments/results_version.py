"""The version of results: raised when the same spec on the same data gives other numbers. Imports nothing.

Every row of a sweep, every plan of a claim and every caption of a figure carries it. Rows of two versions are never pooled, and
a sweep never goes on in a folder of another version. Moving a file or rewording a comment leaves the version as it is.

`tests/golden` holds recorded journals, results and plans. It fails where they change and the version does not, and says what to
do.
"""

from __future__ import annotations

RESULTS_VERSION = 6

HISTORY = {
    1: "The first numbered version. Rows from before carry a digest of the source code instead.",
    2: "Budgets where functions are billed end when what runs has used them up, not when all GPUs would have. Plans need the"
    " quantum that begins at their end. Where segments fail and nothing is durable, tight runs save each iteration."
    " Results say whether the job was completed, and when; a pre-determined job that was cut has missed its deadline."
    " RubberBand has the static plan among its candidates, and planners are compared in one space of plans."
    " SEER may train its winner to less than R under any schedule, keeps more survivors where T and B allow, keeps no reserve"
    " unless asked to, and prices machines until they are given back."
    " `explore-finish` takes no larger gang than brings its best trial to R by T, and starts all configurations of an exact job"
    " before it promotes.",
    3: "What comes to exactly the budget is paid: sums of prices that were above it by the rounding of floats were refused."
    " Frontiers price machines until they are given back while they search, and no longer only afterwards: where trials differ,"
    " SEER finds cheaper plans, and plans for budgets for which it found none.",
    4: "SEER asks its next plan before it requests machines ahead of a barrier, and requests those alone that it would keep.",
    5: "An exact job of SEER with a budget is completed where all survivors that were planned for were trained; before, it was"
    " not as soon as a barrier dropped anybody. Everything else is as in 4.",
    6: "Where minimum charges or quanta leave too many partial plans to follow, fewer begin a stage, and those that cannot beat"
    " the known plans are left out before the others are compared: SEER finds other plans there, several times as fast. Plans"
    " without a gap (`plan_search_gap` 0) are as in 5. digits-mlp and mnist5k-cnn hold three trainings of their configurations"
    " (mnist5k-cnn of the first 64), of which a seed draws one.",
}
"""By version, what it changed."""


def before_versions(code_sha256: str) -> str:
    """What a row says that was made before results had versions, given the digest of the code that made it."""
    return f"before results versions (code {code_sha256[:12]})"
