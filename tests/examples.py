"""How many examples a property is tried on."""

from hypothesis import settings

ALL = 100
"""Of hypothesis where nothing else is asked for."""


def examples(number):
    """So many; in the fast half, whose profile takes fewer, the same share of them."""
    return max(number * settings.default.max_examples // ALL, 5)
