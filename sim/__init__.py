"""The engine. A policy sees events and returns actions; a controller turns them into commands; a backend carries them out.

The rooms, from the inside out (DESIGN.md explains them; import-linter holds the direction of imports):

    model                 the pure core: vocabulary, money, random streams
    control               pure decisions and the only loop; no clock, no I/O but the journal's sink
    simulated | bridge    the two worlds; each knows the pure core only
"""
