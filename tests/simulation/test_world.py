"""Calls, attempts and processes while a simulation is under way."""

from __future__ import annotations

import gc

import pytest

from resilience.deadline import deadline
from resilience.errors import ServiceError
from resilience.retry import AsyncRetryManager
from resilience.simulation.clients import OpenLoop
from resilience.simulation.distributions import Constant
from resilience.simulation.log import Outcome
from resilience.simulation.loop import simulate
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.server import Server, Work
from resilience.simulation.triggers import Trigger, down, lossy, spike
from resilience.simulation.world import World

ONE = Scenario(
    clients=OpenLoop(rate=5.0, processes=2, timeout=1.0),
    servers=Server(workers=None, service_time=Constant(0.25)),
    duration=20.0,
)


def outcomes(result):
    ended = [Outcome(outcome) for outcome in result.log.outcome]
    return {outcome for outcome in ended if outcome is not Outcome.UNFINISHED}


def test_a_call_takes_the_servers_time():
    log = run(ONE).log
    ended = [place for place, outcome in enumerate(log.outcome) if outcome == Outcome.SUCCEEDED]
    assert ended
    assert {round(log.ended[place] - log.began[place], 9) for place in ended} == {0.25}
    assert set(log.attempts) == {1}


def test_an_attempt_ends_at_its_timeout():
    result = run(ONE.replace(triggers=(down(hangs=True, start=0.0, length=20.0),)))
    log = result.log
    assert outcomes(result) == {Outcome.FAILED}
    assert {
        round(log.ended[place] - log.began[place], 9)
        for place, outcome in enumerate(log.outcome)
        if outcome == Outcome.FAILED
    } == {1.0}


def test_attempts_that_ended_leave_no_cycles_behind():
    """Each would hold its frames until a collection, of which a long collapse would need very many."""
    gc.collect()
    gc.disable()
    before = {id(one) for one in gc.get_objects() if type(one) in {TimeoutError, Work}}  # other tests'
    try:
        result = run(ONE.replace(clients=OpenLoop(rate=5.0, processes=2, timeout=0.125)))
        here = [one for one in gc.get_objects() if type(one) in {TimeoutError, Work}]
    finally:
        gc.enable()
    assert result.log.outcome.count(Outcome.FAILED) > 50
    assert result.log.wasted_at
    left = [one for one in here if id(one) not in before]
    assert len(left) <= 5  # those that were under way when the run ended


def test_without_a_timeout_it_takes_as_long_as_it_takes():
    slow_server = Server(workers=None, service_time=Constant(5.0))
    result = run(ONE.replace(clients=OpenLoop(rate=5.0, timeout=None), servers=slow_server))
    assert outcomes(result) == {Outcome.SUCCEEDED}


def test_a_deadline_of_the_policy_ends_the_attempt_sooner():
    def hasty(clock):
        def decorate(call):
            async def within(request):
                with deadline(0.125, clock=clock):
                    return await call(request)

            return within

        return decorate

    result = run(ONE.replace(policy=hasty))
    log = result.log
    assert outcomes(result) == {Outcome.FAILED}
    assert {round(log.ended[place] - log.began[place], 9) for place in range(len(log.began) - 5)} == {0.125}
    assert log.wasted_at


def test_attempts_are_counted_for_their_call():
    def thrice(clock, random, name):
        return AsyncRetryManager(initial_delay=0.0, budget=None, clock=clock, random=random, name=name)

    result = run(ONE.replace(policy=thrice, triggers=(down(start=0.0, length=20.0),)))
    assert set(result.log.attempts) == {3}
    assert len(result.log.sent) == 3 * len(result.log.began)


def test_what_a_policy_rejects_makes_no_attempt():
    def never(clock):
        def decorate(call):
            async def rejected(request):
                raise ServiceError(f"no calls to shard {request.shard}")

            return rejected

        return decorate

    result = run(ONE.replace(policy=never))
    assert outcomes(result) == {Outcome.REJECTED}
    assert not result.log.sent


def test_each_process_has_its_own_policy_name_and_chance():
    made = []

    def policy(clock, random, name):
        made.append((name, random()))
        return AsyncRetryManager(clock=clock, name="storage")

    run(ONE.replace(policy=policy))
    assert [name for name, _ in made] == ["client-0", "client-1"]
    assert made[0][1] != made[1][1]


def test_processes_do_not_share_the_budget_of_a_name():
    """Five tokens in each of two processes: ten retries while everything fails, whatever the name."""

    def policy(clock, random):
        return AsyncRetryManager(initial_delay=0.0, clock=clock, random=random, name="storage")

    for _ in range(2):  # nor do runs
        log = run(ONE.replace(policy=policy, triggers=(down(start=0.0, length=20.0),))).log
        assert len(log.sent) - len(log.began) == 10


def test_a_fault_of_the_policy_ends_the_run():
    def broken(clock):
        def decorate(call):
            async def slip(request):
                await call(request)
                raise KeyError("a slip")

            return slip

        return decorate

    with pytest.raises(KeyError, match="a slip"):
        run(ONE.replace(policy=broken))
    assert outcomes(run(ONE.replace(policy=broken, failures=(KeyError,)))) == {Outcome.FAILED}


def test_triggers_strike_load_network_and_their_shards():
    async def main(clock):
        world = World(Scenario(servers=(Server(), Server())), clock)
        world.strike(
            [spike(3.0), spike(2.0), lossy(0.5), Trigger(loss=0.5, delay=0.25, shards=(1,), speed=0.5)]
        )
        struck = (
            world.load,
            world.link._lost,
            world.link._more_delay,
            [server._slowness for server in world.servers],
        )
        world.strike([])
        return struck, (world.load, world.link._is_perfect)

    assert simulate(main) == ((6.0, 0.75, 0.25, [1.0, 2.0]), (1.0, True))
