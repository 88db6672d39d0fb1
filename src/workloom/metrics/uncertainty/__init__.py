"""How sure a figure is: what of a run is independent, intervals that hold what they say, and when there are none.

    ratio       every figure as sum(part) / sum(whole) over sessions in the order they were due
    blocks      neighbours drawn together: standard errors and the studentised bootstrap
    enough      how many sessions an interval needs, and how many a figure of a wanted width would
    between     the spread of runs with seeds of their own
    difference  two runs against each other
    stationary  whether a run had settled, and what to cut off its beginning

docs/uncertainty.md says what intervals mean and which coverage was measured.
"""
