"""Outages to try settings on before production does it: production policies on simulated time."""

from __future__ import annotations

from resilience.simulation import controls
from resilience.simulation.clients import ClosedLoop, OpenLoop
from resilience.simulation.clock import BlockingError, SimulatedClock
from resilience.simulation.distributions import Constant, Exponential, LogNormal, Mixture
from resilience.simulation.log import Log, Outcome
from resilience.simulation.loop import SimulatedLoop, StandstillError, simulate
from resilience.simulation.network import Network
from resilience.simulation.queues import CoDel, Fifo, Lifo
from resilience.simulation.result import Level, Result, Series
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.server import Server
from resilience.simulation.triggers import Trigger, down, failing, lossy, slow, spike
from resilience.simulation.world import Request

__all__ = [
    "BlockingError",
    "ClosedLoop",
    "CoDel",
    "Constant",
    "Exponential",
    "Fifo",
    "Level",
    "Lifo",
    "Log",
    "LogNormal",
    "Mixture",
    "Network",
    "OpenLoop",
    "Outcome",
    "Request",
    "Result",
    "Scenario",
    "Series",
    "Server",
    "SimulatedClock",
    "SimulatedLoop",
    "StandstillError",
    "Trigger",
    "controls",
    "down",
    "failing",
    "lossy",
    "run",
    "simulate",
    "slow",
    "spike",
]
