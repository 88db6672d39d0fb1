"""How much load a server takes before a promise breaks: as an interval, with what was tried to find it.

    bracket   double the load (or halve it) until runs on both sides are there
    search    runs where they tell most about the edge, until it is known as well as asked
    beside    some runs at neighbouring loads: what is felt there, what breaks first, whether there is a cliff

Every run has a seed of its own, so runs are independent. What is tried next is a function of what was tried before and
of nothing else: a search that was interrupted goes on where it was, and comes to the same answer.
"""

from workloom.answers.capacity.belief import Axis, Belief, Span
from workloom.answers.capacity.probe import Met, Probe, observe
from workloom.answers.capacity.result import Beside, Capacity, Cliff, result
from workloom.answers.capacity.search import Search, Stop, Want, seed_of, step, walk

__all__ = [
    "Axis",
    "Belief",
    "Beside",
    "Capacity",
    "Cliff",
    "Met",
    "Probe",
    "Search",
    "Span",
    "Stop",
    "Want",
    "observe",
    "result",
    "seed_of",
    "step",
    "walk",
]
