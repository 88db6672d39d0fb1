"""Commands about servers and what others measure of them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from workloom.cli.app import Json, OutOrNone, app
from workloom.cli.engine import EngineOptions
from workloom.cli.options import Whole


@app.command
def serve(
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    model: str | None = None,
    record: str | None = None,
    engine: EngineOptions = EngineOptions(),
) -> None:
    """Serve the simulated engine behind an OpenAI-compatible API, in real time.

    Parameters
    ----------
    port
        Port to listen on; 0 takes a free one.
    host
        Address to listen on.
    model
        Name the model goes by; without it every name is accepted, and the profile's model is listed.
    record
        File for the instants of every request, as JSON lines.
    """
    from workloom.cli.engine import tell_unheard
    from workloom.cli.serve import serve as go

    fleet = engine.target()
    tell_unheard(fleet)
    go(fleet, host, port, model, record, engine.prefix_cache == "on")


@app.command
def check(
    url: str,
    /,
    *,
    model: str | None = None,
    timeout: float = 30.0,
    api_key_env: str = "OPENAI_API_KEY",
    header: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006 (cyclopts makes a new one)
    body: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006
    insecure: Annotated[bool, Parameter(negative="")] = False,
    ca_file: str | None = None,
    proxy: str = "env",
    json: Json = False,
) -> None:
    """Find out what a server supports, before anyone wastes an hour: endpoints, exact lengths, counts, caches, limits.

    Parameters
    ----------
    url
        Base URL up to and with /v1.
    model
        Model to ask for (default: the one the server lists, if it lists one).
    timeout
        Seconds that each question may take.
    api_key_env
        Environment variable that holds the key, if the server wants one.
    header
        Extra header, NAME:VALUE; may be given again.
    body
        Extra body field, NAME=JSON; may be given again.
    insecure
        Do not check the server's TLS certificate.
    ca_file
        File of certificates to check the server's by.
    proxy
        Proxy to go through: a URL, env or none.
    """
    from workloom.cli.check import check as go

    go(url, model, timeout, api_key_env, header, body, insecure, ca_file, proxy, json)


@app.command
def selftest(*, seconds: float = 36.0, json: Json = False) -> None:
    """Measure this machine against a server that costs nothing: up to which load the numbers can be trusted.

    Parameters
    ----------
    seconds
        About how long it may take.
    """
    from workloom.cli.selftest import selftest as go

    go(json, seconds)


@app.command
def agentx(
    directory: str,
    /,
    *,
    out: OutOrNone = None,
    tag: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006
    mvp: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Give a run as the aggregate of InferenceX AgentX: its definitions, its JSON, and whether its rules were kept.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote.
    out
        The aggregate to write (.json).
    tag
        A field of the identity that a run cannot know, as KEY=VALUE: hw, framework, precision, tp, ...; may be given
        again.
    mvp
        The summary of the earlier protocol instead (what a run of --scenario agentx-mvp gives anyway).
    strict
        Fail unless the run kept to every rule.
    """
    from workloom.cli.agentx import agentx as go

    go(directory, out, tag, mvp, strict, json)


@app.command
def trie(directory: str, /, *, out: OutOrNone = None, gpus: Whole = None, json: Json = False) -> None:
    """Give a run in the headline metrics of Applied Compute's harness: traces end to end, TTFAT, steady-state rates.

    Parameters
    ----------
    directory
        What `workloom run -o` wrote.
    out
        The metrics to write (.json).
    gpus
        GPUs that served the run (default: the simulated engine's, else 1).
    """
    from workloom.cli.agentx import trie as go

    go(directory, out, gpus, json)
