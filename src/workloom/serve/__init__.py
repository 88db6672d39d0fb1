"""An OpenAI-compatible HTTP server over one simulated engine, in real time.

    texts     prompt text -> Key: one word is one token, what was seen before costs a memory compare
    answers   the words a simulated model says
    pump      the engine on a real clock: sleeps to the next step boundary, hands out what came
    wire      the bytes of answers: whole ones, and streams of server-sent events
    asking    request bodies, checked
    metrics   /metrics under vLLM's names
    record    what was served, to a file, and the same fed to an engine in no time
    app       routes, start and end

The schedule is decided by arrival stamps alone: however late the loop wakes, the engine does what it would have done.
"""

from workloom.serve.app import Server, serve
from workloom.serve.run import run as run_server

__all__ = ["Server", "run_server", "serve"]
