"""Decisions: events in, commands out.

`controller` turns a policy's actions into commands, `state` is what it knows, `fleet` and `placement` choose machines,
`journal` records, `runner` is the only loop. May import `sim.model`; no clock, no thread, no simulator.
"""
