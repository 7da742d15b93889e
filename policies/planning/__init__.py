"""Planners: from stages, profile and prices to an allocation per stage. Pure; no simulator.

`plan` says what a plan is, `estimate` what it takes and costs in closed form, `bill` what anything costs, `bound` what no plan
can beat, `witness` whether a plan in hand proves that there is another. `spaces` says what one stage can be given, `choices`
what each of it takes and costs. `static`, `rubberband_search` and `greedy` search, `frontier` finds every efficient plan of a
space, on one type of machine or on several.
"""
