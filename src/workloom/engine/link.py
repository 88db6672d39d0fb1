"""A serial link: transfers one after the other, first come first served.

    done = max(asked, end of the one before) + latency + bytes / bandwidth        rounded up to a picosecond

The end of a transfer is settled when it is asked for. One whose call is gone runs to its end all the same (a copy that
was handed to the hardware is not taken back), so nobody's end ever changes.
"""

from __future__ import annotations

PS_PER_S = 10**12


class Link:
    """One direction of a connection: `bytes_per_s` after `latency_ps`, which every transfer pays in its turn."""

    def __init__(self, bytes_per_s: float, latency_ps: int = 0) -> None:
        if bytes_per_s <= 0 or latency_ps < 0:
            raise ValueError("a link has a bandwidth above 0 and a latency of at least 0")
        self.latency_ps = latency_ps
        self._rate = bytes_per_s.as_integer_ratio()
        self.free_ps = 0
        """When the last transfer asked for ends: one asked for later than that begins at once."""
        self.busy_ps = 0
        """Time it was taken up, ever: latency included, transfers asked for but not over too."""
        self.transfers = 0
        self.bytes = 0
        """Asked for, ever."""

    def takes_ps(self, size: int) -> int:
        """How long a transfer of `size` bytes takes up the link."""
        bytes_num, s_num = self._rate
        return self.latency_ps - (-size * PS_PER_S * s_num // bytes_num)

    def transfer(self, at_ps: int, size: int) -> int:
        """Ask for `size` bytes at an instant, behind all that was asked for before; returns when they are there.

        Instants need not rise from one call to the next: it is the order of asking that counts.
        """
        if size < 0:
            raise ValueError(f"a transfer of {size} bytes")
        takes = self.takes_ps(size)
        self.free_ps = max(self.free_ps, at_ps) + takes
        self.busy_ps += takes
        self.transfers += 1
        self.bytes += size
        return self.free_ps
