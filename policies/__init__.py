"""Policies: they see events and a read-only view, and answer with actions; they never know where they run.

`registry` names them all. Rooms, from the ground up; each may import those before it, and the pure core of `sim`:
`rules` (the promotion arithmetic of the papers), `planning` (allocations, their time and cost), `execution` (running a rule on
machines, keeping T and B), `sizing` (how large a job fits T and B), and the policies themselves: `tuners`, and above them
`seer` and `explore_finish`, side by side.

`[ours]` at the end of a docstring or sentence means: designed here, not taken from a paper. A class or function that follows a
paper names it, and lists under `Deviations:` what departs from it.
"""
