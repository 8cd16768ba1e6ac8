"""Which policy a client process has: made for it alone, by a factory, on simulated time.

A factory is called once for each client process, since that is what happens in production: each process
imports the module and makes its own. It gets, by keyword, those of these that it takes:

    clock    the simulation's clock, which every policy must go by; a factory has to take it
    random   draws from 0 to 1, from the seed
    name     `"client-0"`, `"client-1"` and so on

and returns the policy: an object that decorates an async function (`RetryManager`, `CircuitBreaker`,
`AsyncPipeline`, any decorator), or one with `guard_async`, `execute_async` or an async `execute`. So a class
such as `AsyncRetryManager` is a factory by itself, and so is a `partial` of it.

Budgets of a name are one for each process, in production. Here, too: a name means another budget in each
client process, however and whenever the policy comes by it, and none that is used outside of the run.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Final, cast

from resilience.callables import Kind, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.clock import Clock

    Factory = Callable[..., Any]
    """Makes a client process's policy, from `clock`, `random` and `name`."""
    Call = Callable[[Any], Awaitable[object]]

_OFFERED: Final = ("clock", "random", "name")

_ADVICE: Final = """
a factory is called once for each client process, with the clock of the simulation:

    def policy(clock, random, name):
        return AsyncRetryManager(max_attempts=5, clock=clock, random=random, name=name)
"""


# --- factories -----------------------------------------------------------------------------------


def factory_named(where: str) -> Factory:
    """Return the factory that `where` names, as `module:attribute`.

    Raises:
        ValueError: It is not of that form, or there is no such module or attribute.
        TypeError: It is no factory.
    """
    module_name, colon, attribute = where.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"{where!r} must be module:attribute, such as mymodule:policy")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and itself lacks another
        raise ValueError(
            f"{where!r}: there is no module {error.name!r} on the path {sys.path[:3]}...; run it from the "
            "folder that the module is in"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where!r}: {found!r} has no attribute {part!r}")
        found = getattr(found, part)
    return checked_factory(found, where)


def checked_factory(factory: Any, where: str) -> Factory:
    """Return `factory` if it is one.

    Args:
        factory: What was given.
        where: What to call it in a message.

    Raises:
        TypeError: It is none; the message says what to write.
    """
    if not callable(factory):
        raise TypeError(f"{where} is {factory!r}, which is no factory: {_ADVICE}")
    if _is_policy(factory):
        raise TypeError(
            f"{where} is {factory!r}, a policy that is made already: it would go by the machine's clock, and "
            f"all client processes would share it. Name a factory instead; {_ADVICE}"
        )
    if kind_of(factory) is not Kind.SYNC:
        raise TypeError(
            f"{where} is a {kind_of(factory).value}, and a factory is a plain function; {_ADVICE}"
        )
    try:
        parameters = signature(factory).parameters
    except ValueError as error:
        raise TypeError(f"{where} is {factory!r}, which does not say what it takes; {_ADVICE}") from error
    if "clock" not in _taken(factory):
        raise TypeError(
            f"{where} takes ({', '.join(parameters)}) and no clock, so what it makes would go by the "
            f"machine's; {_ADVICE}"
        )
    lacking = [
        name
        for name, parameter in parameters.items()
        if parameter.default is Parameter.empty
        and parameter.kind not in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
        and name not in _OFFERED
    ]
    if lacking:
        raise TypeError(
            f"{where} needs {', '.join(lacking)}, which a simulation does not know; bind it by "
            f"functools.partial; {_ADVICE}"
        )
    return cast("Factory", factory)


def _is_policy(candidate: Any) -> bool:
    return not isinstance(candidate, type) and any(
        hasattr(candidate, method) for method in ("execute", "execute_async", "guard_async")
    )


def _taken(factory: Factory) -> list[str]:
    """Return those of what is offered that `factory` takes by keyword."""
    parameters = signature(factory).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return list(_OFFERED)
    by_keyword = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return [name for name in _OFFERED if name in parameters and parameters[name].kind in by_keyword]


def made(factory: Factory, clock: Clock, random: Callable[[], float], name: str) -> Any:
    """Return what `factory` makes."""
    offered: dict[str, Any] = {"clock": clock, "random": random, "name": name}
    return factory(**{taken: offered[taken] for taken in _taken(factory)})


def guarded(policy: Any, call: Call) -> Call:
    """Return `call`, guarded by `policy`.

    Raises:
        TypeError: It is no policy for async functions.
    """
    if hasattr(policy, "guard_async"):
        result = cast("Call", policy.guard_async(call))
    elif callable(policy):
        result = cast("Call", policy(call))
    elif hasattr(policy, "execute_async"):
        return lambda request: policy.execute_async(call, request)
    elif hasattr(policy, "execute") and kind_of(policy.execute) is Kind.ASYNC:
        return lambda request: policy.execute(call, request)
    else:
        raise TypeError(
            f"the factory made {policy!r}, which is no policy for async functions: it must be a decorator, "
            "or have guard_async, execute_async or an async execute"
        )
    if kind_of(result) is not Kind.ASYNC:
        raise TypeError(
            f"{policy!r} made {name_of(result)} of an async function, which is none any more: the policy "
            "must be for async functions"
        )
    return result
