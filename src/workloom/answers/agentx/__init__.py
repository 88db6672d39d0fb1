"""InferenceX AgentX, to the letter: its metric definitions, its aggregate JSON, and a stamp of validity with reasons.

columns      rows of a run as numpy columns            requests     definitions: latency, throughput, accounting
series       samples of the server as series           server       an adapter for each engine
theoretical  the hit rate of an infinite cache          validity     the rules of the protocol
shape        the JSON, as structs                       aggregate    everything put together
"""

from workloom.answers.agentx.aggregate import aggregate, encode
from workloom.answers.agentx.identity import Identity, identity_of
from workloom.answers.agentx.mvp import MvpSummary, mvp
from workloom.answers.agentx.shape import Aggregate, Validity
from workloom.answers.agentx.show import HEADINGS, MVP_HEADINGS, mvp_rows, rows
from workloom.answers.agentx.validity import scenario_of

__all__ = [
    "HEADINGS",
    "MVP_HEADINGS",
    "Aggregate",
    "Identity",
    "MvpSummary",
    "Validity",
    "aggregate",
    "encode",
    "identity_of",
    "mvp",
    "mvp_rows",
    "rows",
    "scenario_of",
]
