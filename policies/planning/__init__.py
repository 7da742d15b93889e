"""Planners: from stages, profile and prices to an allocation per stage. Pure; no simulator.

`plan` says what a plan is, `estimate` what it takes in closed form and `sampling` by Monte Carlo, `spending` where its money
goes, `bound` what no plan can beat; `spaces` and `options` what one stage can be given. `static`, `naive`, `rubberband_search`
and `greedy` search, `frontier` finds every efficient plan of a space; `instance_types` lets them pick the machine as well.
"""
