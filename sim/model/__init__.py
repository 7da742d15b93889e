"""The vocabulary: events, actions, commands, the job, belief and truth, and the protocols at the seams.

The pure core: may import the standard library, numpy and msgspec, and nothing else of the project.
"""
