"""Planners: from stages, profile and prices to an allocation per stage. Pure; no simulator.

`plan` says what a plan is, `estimate` what it takes, `options` what one stage can be given; `static`, `rubberband_search` and
`greedy` search.
"""
