"""Clouds as recorded: prices, start-up, spot markets, stragglers.

May import `sim.model` and `traces.formats`.
"""
