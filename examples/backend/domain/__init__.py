"""What the product does, written once: coroutines over ports, without a framework or a driver.

Each module states at its top what it asks of the world, as protocols; `examples.backend.ports` has what
answers them. The coroutines wait only where a port does, so a shell without an event loop can drive them
with ports that never suspend.
"""
