"""Everything that is loaded from files or made up for tests, as typed objects that were checked at the edge.

May import sim.model, sim.billing, sim.streams, numpy, msgspec and the standard library; pyarrow and yaml inside the
functions that need them. Origin, licence and digest of every shipped file: `traces/README.md`.
"""

from traces.bundle import Bundle, bundle_names, load_bundle
from traces.prices import (
    Offer,
    instance_type_named,
    instance_type_names,
    load_instance_types,
    load_offers,
    offer_named,
    shipped_offers,
)
from traces.scaling import DecreasingScalingWarning, load_scaling, scaling_named, scaling_names, scaling_of
from traces.startup import startup_names, startup_of
from traces.synthetic import synthetic_bundle, tiny_bundle
from traces.terms import Overrides, ProfileErrors, WorkloadTerms

__all__ = [
    "Bundle",
    "DecreasingScalingWarning",
    "Offer",
    "Overrides",
    "ProfileErrors",
    "WorkloadTerms",
    "bundle_names",
    "instance_type_named",
    "instance_type_names",
    "load_bundle",
    "load_instance_types",
    "load_offers",
    "load_scaling",
    "offer_named",
    "scaling_named",
    "scaling_names",
    "scaling_of",
    "shipped_offers",
    "startup_names",
    "startup_of",
    "synthetic_bundle",
    "tiny_bundle",
]
