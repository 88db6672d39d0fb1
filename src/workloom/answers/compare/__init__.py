"""Two runs, or two sets of repeated runs, side by side: what differs, by how much, and whether that is chance."""

from workloom.answers.compare.compare import Comparison, compare
from workloom.answers.compare.gate import Gate, Held, gate
from workloom.answers.compare.sides import Side, open_side

__all__ = ["Comparison", "Gate", "Held", "Side", "compare", "gate", "open_side"]
