"""Everything that is loaded from files or made up for tests, as typed objects that were checked at the edge.

May import sim.model, sim.model.billing, sim.model.streams, numpy, msgspec and the standard library; pyarrow and yaml inside the
functions that need them. Origin, licence and digest of every shipped file: `traces/README.md`.
"""

from elastune.traces.bundles.bundle import Bundle, repeating_phrase
from elastune.traces.bundles.loading import bundle_folder, bundle_names, load_bundle
from elastune.traces.bundles.synthetic import synthetic_bundle, tiny_bundle
from elastune.traces.bundles.terms import Overrides, ProfileErrors, WorkloadTerms
from elastune.traces.cloud.prices import (
    Offer,
    instance_type_names,
    load_offers,
    offer_named,
    shipped_offers,
)
from elastune.traces.cloud.reclaim import load_spot_trace
from elastune.traces.cloud.startup import startup_of
from elastune.traces.cloud.stragglers import tail_of
from elastune.traces.scaling.fit import ScalingFit, fit_scaling
from elastune.traces.scaling.inline import inline_of
from elastune.traces.scaling.named import (
    load_scaling,
    measured_table,
    scaling_named,
    scaling_names,
    scaling_of,
)
from elastune.traces.scaling.tables import MeasuredTable, slower_phrase

__all__ = [
    "Bundle",
    "MeasuredTable",
    "Offer",
    "Overrides",
    "ProfileErrors",
    "ScalingFit",
    "WorkloadTerms",
    "bundle_folder",
    "bundle_names",
    "fit_scaling",
    "inline_of",
    "instance_type_names",
    "load_bundle",
    "load_offers",
    "load_scaling",
    "load_spot_trace",
    "measured_table",
    "offer_named",
    "repeating_phrase",
    "scaling_named",
    "scaling_names",
    "scaling_of",
    "shipped_offers",
    "slower_phrase",
    "startup_of",
    "synthetic_bundle",
    "tail_of",
    "tiny_bundle",
]
