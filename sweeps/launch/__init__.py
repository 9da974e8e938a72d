"""From a sweep's flags to finished runs, tables and figures."""

from sweeps.launch.command import launch
from sweeps.launch.sweep import Findings, Sweep

__all__ = ["Findings", "Sweep", "launch"]
