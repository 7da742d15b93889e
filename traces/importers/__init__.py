"""From others' tables to bundles: the place of the importers, one module per format."""
