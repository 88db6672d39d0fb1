"""What a run is carried out on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from workloom.drive.targets import HttpOptions
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import Profile

if TYPE_CHECKING:
    from workloom.drive.styles import Style


class Simulated(Struct, frozen=True):
    """Run on the simulated engine, or a fleet of them, in virtual time."""

    profile: Profile
    prefix_cache: bool = True
    fleet: Fleet | None = None
    """None: one replica of the profile. Else `profile` is that of its first pool."""
    event_log: Path | None = None
    """A new file for what the engines do: see :mod:`workloom.execute.event_log`."""

    @classmethod
    def of(cls, fleet: Fleet, prefix_cache: bool = True) -> Simulated:
        """The target for a fleet."""
        return cls(fleet.pools[0].profile, prefix_cache, fleet)

    @property
    def whole(self) -> Fleet:
        """The fleet, also of one replica."""
        return self.fleet or Fleet((Pool(self.profile),))

    @property
    def longest_call(self) -> int:
        """Most tokens, prompt + answer, of a call that every pool can serve."""
        return min(pool.profile.longest_call for pool in self.whole.pools)


class Live(Struct, frozen=True, kw_only=True):
    """Run against servers. The API key of `http` goes into the requests and nowhere else."""

    http: HttpOptions
    salt: int
    """Makes the texts of this run."""
    text: str = "patterns"
    """Style of the texts: see :mod:`workloom.drive.styles`."""
    tokenizer: str | None = None
    workers: int = 1
    """Processes that share the work."""
    scrape: bool = True
    """Ask the servers for their own figures once a second."""
    metrics_urls: tuple[str, ...] = ()
    """Pages of figures besides the servers' own."""
    gpu_power: bool = False
    reset_cache: bool = False
    """Empty the servers' prefix caches before the run."""
    debug_trace: bool = False
    max_model_len: int | None = None
    """The longest call by the servers' own word."""

    def cache_of(self, agent: str, model: str, instance: int) -> str:
        """Which prefix cache a call meets: its model's on the server that its session is dealt to."""
        return f"{self.http.served(agent, model)} {instance % len(self.http.urls)}"

    def style(self) -> Style:
        """The texts."""
        from workloom.drive.styles import style

        if self.tokenizer is None:
            return style(self.text, self.salt)
        from workloom.drive.tokenizer import load

        return style(self.text, self.salt, load(self.tokenizer))
