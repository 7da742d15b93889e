"""Everything that is loaded from files or made up for tests, as typed objects that were checked at the edge.

May import sim.model, sim.billing, sim.streams, numpy, msgspec and the standard library; pyarrow and yaml inside the
functions that need them. Origin, licence and digest of every shipped file: `traces/README.md`.
"""

from traces.bundle import Bundle, bundle_folder, bundle_names, load_bundle
from traces.prices import (
    Offer,
    instance_type_named,
    instance_type_names,
    load_instance_types,
    load_offers,
    offer_named,
    shipped_offers,
)
from traces.reclaim import load_spot_trace
from traces.scaling import load_scaling, measured_table, scaling_named, scaling_names, scaling_of
from traces.scaling_fit import ScalingFit, fit_scaling
from traces.scaling_inline import inline_of
from traces.scaling_tables import DecreasingScalingWarning, MeasuredTable
from traces.startup import startup_names, startup_of
from traces.stragglers import tail_of
from traces.synthetic import synthetic_bundle, tiny_bundle
from traces.terms import Overrides, ProfileErrors, WorkloadTerms

__all__ = [
    "Bundle",
    "DecreasingScalingWarning",
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
    "instance_type_named",
    "instance_type_names",
    "load_bundle",
    "load_instance_types",
    "load_offers",
    "load_scaling",
    "load_spot_trace",
    "measured_table",
    "offer_named",
    "scaling_named",
    "scaling_names",
    "scaling_of",
    "shipped_offers",
    "startup_names",
    "startup_of",
    "synthetic_bundle",
    "tail_of",
    "tiny_bundle",
]
