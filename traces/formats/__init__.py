"""Readers of file formats that blame the right file, row and column.

May import `sim.model` and the standard library.
"""
