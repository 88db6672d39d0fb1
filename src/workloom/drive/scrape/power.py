"""Power and energy of this machine's GPUs, through nvidia-ml-py (the extra `gpu`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


class PowerMeter:
    """Reads all GPUs of this machine. Where there is no NVML, `fault` says so and there are no figures.

    `load` gives the module `pynvml` (or one like it).
    """

    def __init__(self, load: Callable[[], Any] = lambda: import_module("pynvml")) -> None:
        self.fault: str | None = None
        self._handles: list[Any] = []
        try:
            self._nvml = load()
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            if not count:
                self.fault = "this machine has no NVIDIA GPU"
        except ImportError:
            self.fault = "GPU power needs nvidia-ml-py: install workloom[gpu]"
        except Exception as fault:  # its errors have a class of their own, in a module that may not be there
            self.fault = f"NVML: {fault}"

    def read(self) -> list[tuple[str, str, float]]:
        """(name, gpu, value): gpu:power_w now and gpu:energy_j since the driver was loaded (newer than Pascal)."""
        rows = []
        for index, handle in enumerate(self._handles):
            for name, ask, unit in (
                ("gpu:power_w", "nvmlDeviceGetPowerUsage", 1e-3),
                ("gpu:energy_j", "nvmlDeviceGetTotalEnergyConsumption", 1e-3),
            ):
                try:
                    rows.append((name, f"gpu{index}", getattr(self._nvml, ask)(handle) * unit))
                except Exception as fault:
                    self.fault = f"NVML: gpu{index}: {fault}"
        return rows
