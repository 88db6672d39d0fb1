"""Many points of one question: `workloom run` under sets of options, a table, and what dominates what."""
