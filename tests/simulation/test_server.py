"""Servers: capacity, order, bounds, dead work, their own policies, and how triggers strike them."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import pytest

from resilience.breaker import CircuitBreaker
from resilience.errors import ServiceError
from resilience.simulation.distributions import Constant, Exponential, LogNormal
from resilience.simulation.loop import simulate
from resilience.simulation.queues import CoDel, Lifo
from resilience.simulation.scenario import Scenario
from resilience.simulation.server import Server, Work, settle
from resilience.simulation.triggers import down, failing, slow
from resilience.simulation.world import World
from resilience.transient import is_transient


def ask(server, patience, *, trouble=(), ask_at=None, until=30.0):
    """Send one request for each of `patience`; return what became of each, and the world.

    Each is (seconds, answer), the answer None for a success and "gave up" for none in time.
    """

    async def one(world, at, seconds):
        await asyncio.sleep(at)
        began = world.clock.now()
        reply = world.loop.create_future()
        work = Work(reply, began + seconds)
        world.servers[0].receive(work)
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await reply
        except TimeoutError:
            answer = "gave up"
        except (ServiceError, OSError) as error:
            answer = type(error).__name__
        else:
            answer = None
        finally:
            work.leave()
        return round(world.clock.now() - began, 6), answer

    async def main(clock):
        world = World(Scenario(servers=server), clock)
        world.servers[0].strike(list(trouble))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(world, at, seconds))
                for at, seconds in zip(ask_at or [0.0] * len(patience), patience, strict=True)
            ]
        await asyncio.sleep(until)
        if world.over.done():
            world.over.result()
        return [task.result() for task in tasks], world

    return simulate(main)


SLOW = {"service_time": Constant(1.0)}


def test_so_many_workers_and_a_queue():
    answers, world = ask(Server(workers=2, **SLOW), [9] * 5)
    assert answers == [(1.0, None), (1.0, None), (2.0, None), (2.0, None), (3.0, None)]
    assert (world.servers[0].busy, world.servers[0].waiting) == (0, 0)


def test_any_number_of_workers():
    assert ask(Server(workers=None, **SLOW), [9] * 50)[0] == [(1.0, None)] * 50


def test_the_newest_first():
    answers, _ = ask(Server(workers=1, discipline=Lifo(), **SLOW), [9] * 3)
    assert answers == [(1.0, None), (3.0, None), (2.0, None)]


def test_what_a_bounded_queue_does_not_hold_is_refused_at_once():
    answers, world = ask(Server(workers=1, queue_limit=1, **SLOW), [9] * 3)
    assert answers == [(1.0, None), (2.0, None), (0.0, "ServiceError")]
    assert list(world.log.refusals) == [0.0]


def test_codel_turns_away_what_has_waited_too_long():
    answers, world = ask(Server(workers=1, discipline=CoDel(), **SLOW), [9] * 2)
    assert answers == [(1.0, None), (1.0, "ServiceError")]
    assert len(world.log.refusals) == 1


def test_work_that_nobody_waits_for_is_done_all_the_same():
    answers, world = ask(Server(workers=1, **SLOW), [0.5, 0.5, 9])
    assert answers == [(0.5, "gave up"), (0.5, "gave up"), (3.0, None)]
    assert list(world.log.wasted_at) == [1.0, 2.0]


def test_or_it_is_stopped_and_struck_off():
    answers, world = ask(Server(workers=1, stops_dead_work=True, **SLOW), [0.5, 0.25, 9])
    assert answers == [(0.5, "gave up"), (0.25, "gave up"), (1.5, None)]
    assert list(world.log.wasted_at) == []
    assert (world.servers[0].busy, world.servers[0].waiting) == (0, 0)


def test_what_is_struck_off_makes_room_in_the_queue():
    server = Server(workers=1, queue_limit=1, stops_dead_work=True, **SLOW)
    answers, _ = ask(server, [9, 0.25, 9], ask_at=[0.0, 0.0, 0.5])
    assert answers == [(1.0, None), (0.25, "gave up"), (1.5, None)]


def test_what_has_too_little_time_left_is_turned_away():
    answers, world = ask(Server(workers=1, least_time_left=1.0, **SLOW), [9, 1.5, 0.5, 9])
    assert answers == [(1.0, None), (1.0, "ServiceError"), (0.5, "gave up"), (2.0, None)]
    assert list(world.log.refusals) == [1.0]  # whoever has gone is refused nothing


def test_a_slow_server_takes_longer():
    assert ask(Server(workers=1, **SLOW), [99], trouble=[slow(0.5), slow(0.1)])[0] == [(20.0, None)]


def test_a_server_that_is_down_refuses_or_hangs():
    assert ask(Server(**SLOW), [9], trouble=[down()])[0] == [(0.0, "ConnectionRefusedError")]
    assert ask(Server(**SLOW), [9], trouble=[down(), down(hangs=True)])[0] == [(9.0, "gave up")]


def test_a_failing_server_fails_after_the_work():
    assert ask(Server(**SLOW), [9], trouble=[failing(1.0)])[0] == [(1.0, "ConnectionResetError")]
    answers, _ = ask(Server(workers=None, **SLOW), [9] * 1000, trouble=[failing(0.5), failing(0.5)])
    assert sum(answer is None for _, answer in answers) == pytest.approx(250, abs=50)


# --- a policy of the server's own ----------------------------------------------------------------


class Gate:
    """Lets in so many at a time."""

    def __init__(self, most):
        self.inside, self.most, self.seen = 0, most, []

    def guard_async(self, fn):
        from resilience.deadline import remaining

        async def guarded(work):
            self.seen.append(remaining())
            if self.inside >= self.most:
                raise ServiceError("full")
            self.inside += 1
            try:
                return await fn(work)
            finally:
                self.inside -= 1

        return guarded


@pytest.mark.parametrize("stops", [False, True])
def test_a_policy_stands_before_the_queue(stops):
    gate = Gate(2)
    server = Server(workers=1, policy=lambda clock: gate, stops_dead_work=stops, **SLOW)
    answers, world = ask(server, [9, math.inf, 9])
    assert answers == [(1.0, None), (2.0, None), (0.0, "ServiceError")]
    assert gate.seen == [9.0, None, 9.0]
    assert list(world.log.refusals) == [0.0]
    assert gate.inside == 0


def test_a_policy_learns_of_a_client_that_gave_up_where_the_server_does():
    gate = Gate(9)
    server = Server(workers=1, policy=lambda clock: gate, stops_dead_work=True, **SLOW)
    answers, world = ask(server, [0.5, 0.25, 9], until=0.0)
    assert answers == [(0.5, "gave up"), (0.25, "gave up"), (1.5, None)]
    assert list(world.log.wasted_at) == []
    assert (gate.inside, world.servers[0].busy) == (0, 0)


def test_without_that_the_work_goes_on_behind_the_policy():
    server = Server(workers=1, policy=lambda clock: Gate(9), **SLOW)
    answers, world = ask(server, [0.5, 9])
    assert answers == [(0.5, "gave up"), (2.0, None)]
    assert list(world.log.wasted_at) == [1.0]


def test_what_the_server_itself_refuses_is_refused_once():
    server = Server(workers=1, queue_limit=0, policy=lambda clock: Gate(9), **SLOW)
    answers, world = ask(server, [9, 9])
    assert answers == [(1.0, None), (0.0, "ServiceError")]
    assert len(world.log.refusals) == 1


@pytest.mark.parametrize(("patience", "wasted"), [(9, []), (2.5, [3.0, 4.0])])
def test_a_policy_may_have_the_work_done_again(patience, wasted):
    def twice(fn):
        async def repeated(work):
            with suppress(ConnectionError):
                return await fn(work)
            return await fn(work)

        return repeated

    server = Server(workers=1, policy=lambda clock: twice, **SLOW)
    answers, world = ask(server, [patience] * 2, trouble=[failing(1.0)])
    failed = [(3.0, "ConnectionResetError"), (4.0, "ConnectionResetError")]
    assert answers == (failed if patience == 9 else [(2.5, "gave up")] * 2)
    assert list(world.log.wasted_at) == wasted
    assert (world.servers[0].waiting, world.servers[0].busy) == (0, 0)


def test_a_production_breaker_guards_a_server():
    def policy(clock, random, name):
        return CircuitBreaker(2, 60.0, clock=clock, random=random, name=name)

    server = Server(workers=1, policy=policy, **SLOW)
    answers, _ = ask(server, [9] * 4, trouble=[failing(1.0)], ask_at=[0.0, 2.0, 4.0, 6.0])
    failed, rejected = (1.0, "ConnectionResetError"), (0.0, "ServiceError")
    assert answers == [failed, failed, rejected, rejected]


async def test_clients_see_a_response_and_may_try_again():
    """Our own open breaker is never retried; one on the other side is a 503 like any other."""

    def open_breaker(clock):
        breaker = CircuitBreaker(1, 60.0, recovery_jitter=0.0, clock=clock)
        with suppress(ConnectionError), breaker.guard():
            raise ConnectionError
        return breaker

    async def main(clock):
        world = World(Scenario(servers=Server(policy=open_breaker)), clock)
        reply = world.loop.create_future()
        world.servers[0].receive(Work(reply, math.inf))
        await asyncio.wait([reply])
        return reply.exception()

    error = await asyncio.to_thread(simulate, main)
    assert (error.status, error.retry_after) == (503, 60.0)
    assert is_transient(error)


def test_a_fault_of_the_policy_ends_the_run():
    def policy(clock):
        def decorate(fn):
            async def broken(work):
                raise KeyError("a slip")

            return broken

        return decorate

    with pytest.raises(KeyError, match="a slip"):
        ask(Server(policy=policy), [0.5])


# --- figures -------------------------------------------------------------------------------------


def test_capacity():
    assert Server().capacity == pytest.approx(500.0)
    assert Server(workers=4, service_time=Constant(0.5)).capacity == 8.0
    assert Server(service_time=LogNormal(0.01, 0.1)).capacity == pytest.approx(612.7, abs=0.1)
    assert Server(workers=None).capacity is None
    assert Server(service_time=lambda random: 0.1).capacity is None
    assert Server(service_time=Constant(0.0)).capacity is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"service_time": 0.02}, TypeError),
        ({"service_time": Exponential}, TypeError),
        ({"discipline": "fifo"}, TypeError),
        ({"queue_limit": -1}, ValueError),
        ({"least_time_left": -1}, ValueError),
        ({"policy": 5}, TypeError),
    ],
)
def test_figures_out_of_range_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        Server(**arguments)


async def test_an_answer_is_given_once():
    reply = asyncio.get_running_loop().create_future()
    work = Work(reply, 1.0)
    assert work.is_wanted
    settle(reply, None)
    settle(reply, TimeoutError())
    assert not work.is_wanted
    work.leave()
    work.answer(None)
    assert reply.result() is None
