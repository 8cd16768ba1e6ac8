"""Scenarios: what is refused, how a run goes, and that it repeats itself."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from resilience.retry import AsyncRetryManager, RetryManager, budget_of
from resilience.simulation import controls
from resilience.simulation.clients import ClosedLoop, OpenLoop
from resilience.simulation.clock import BlockingError
from resilience.simulation.distributions import LogNormal
from resilience.simulation.network import Network
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.server import Server
from resilience.simulation.triggers import down, failing, lossy, slow

SMALL = Scenario(
    clients=OpenLoop(rate=40.0, processes=5),
    servers=Server(workers=1),
    network=Network(delay=LogNormal(0.005, 0.02), loss=0.01),
    triggers=(slow(0.1, start=10.0, length=5.0), down(start=20.0, length=2.0)),
    duration=40.0,
)


def test_its_parts():
    assert Scenario().shards == (Server(),)
    assert Scenario(servers=(Server(), Server())).shards == (Server(), Server())
    assert (SMALL.begins, SMALL.ends) == (10.0, 22.0)
    assert (Scenario().begins, Scenario().ends) == (200.0, 200.0)
    assert SMALL.replace(seed=2).seed == 2
    one_of_two = slow(shards=(1,))
    assert Scenario(servers=(Server(), Server()), triggers=(one_of_two,)).triggers == (one_of_two,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clients": 50}, TypeError, "clients=50 must be an OpenLoop or a ClosedLoop"),
        ({"servers": ()}, TypeError, "servers=.* must be a Server"),
        ({"servers": (1,)}, TypeError, "servers=.* must be a Server"),
        ({"network": None}, TypeError, "network=None must be a Network"),
        ({"triggers": slow()}, TypeError, "must be a tuple of triggers"),
        ({"triggers": (5,)}, TypeError, "must be a tuple of triggers"),
        ({"policy": AsyncRetryManager()}, TypeError, r"Scenario\.policy is .* made already"),
        ({"duration": 0}, ValueError, "duration"),
        ({"warm_up": 201}, ValueError, "warm_up"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"triggers": (slow(start=195.0),)}, ValueError, "ends at 205 s, after the duration of 200 s"),
        ({"triggers": (slow(shards=(1,)),)}, ValueError, "strikes shard 1, and there are 1 only"),
    ],
)
def test_what_is_no_scenario_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Scenario(**arguments)


@pytest.mark.parametrize(
    "loses", [{"network": Network(loss=0.1)}, {"triggers": (lossy(0.1),)}, {"triggers": (down(hangs=True),)}]
)
def test_calls_that_would_never_end_are_refused(loses):
    with pytest.raises(ValueError, match="timeout=None, and answers may get lost"):
        Scenario(clients=OpenLoop(timeout=None), **loses)


# --- one seed, one course ------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [SMALL.clients, ClosedLoop(callers=2, processes=5)])
@pytest.mark.parametrize("policy", [controls.defaults, controls.backoff_retries, None])
def test_one_seed_replays_one_run_exactly(policy, clients):
    scenario = SMALL.replace(policy=policy, clients=clients)
    assert run(scenario).fingerprint == run(scenario).fingerprint
    assert run(scenario).fingerprint != run(scenario.replace(seed=2)).fingerprint


def test_it_does_so_in_another_process_too():
    source = (
        "from tests.simulation.test_scenario import SMALL, controls, run;"
        "print(run(SMALL.replace(policy=controls.defaults)).fingerprint)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", source], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{run(SMALL.replace(policy=controls.defaults)).fingerprint}\n".encode()}


def test_the_budgets_of_servers_are_those_of_one_run():
    def policy(clock, random, name):
        return AsyncRetryManager(name=name, clock=clock, random=random)

    scenario = SMALL.replace(
        servers=Server(policy=policy), triggers=(failing(0.5, start=1.0, length=11.0),), duration=12.0
    )
    assert run(scenario).fingerprint == run(scenario).fingerprint
    assert budget_of("server-0").tokens == 5.0


def test_a_policy_that_draws_from_the_random_module_repeats_itself_too():
    def policy(clock):
        return AsyncRetryManager(clock=clock)

    random.seed(7)
    before = random.getstate()
    first = run(SMALL.replace(policy=policy)).fingerprint
    assert random.getstate() == before
    random.seed(8)
    assert run(SMALL.replace(policy=policy)).fingerprint == first


def test_clients_call_at_the_same_instants_whatever_their_policy_does():
    runs = [run(SMALL.replace(policy=policy)) for policy in (None, controls.defaults)]
    assert runs[0].log.began == runs[1].log.began
    assert runs[0].log.sent != runs[1].log.sent


# --- a run ---------------------------------------------------------------------------------------


def test_progress_is_told_each_second():
    told = []
    run(SMALL, progress=told.append)
    assert told == [second / 40.0 for second in range(40)] + [1.0, 1.0]


def test_a_policy_for_threads_is_refused():
    def policy(clock, random):
        class Blocking:
            async def execute(self, call, request):
                clock.sleep(1.0)

        return Blocking()

    with pytest.raises(BlockingError, match="AsyncRetryManager"):
        run(SMALL.replace(policy=policy))


def test_a_retry_manager_of_either_kind_decorates_async_functions():
    def policy(clock, random, name):
        return RetryManager(clock=clock, random=random, name=name)

    assert run(SMALL.replace(policy=policy)).fingerprint == (
        run(SMALL.replace(policy=controls.retries_only)).fingerprint
    )
