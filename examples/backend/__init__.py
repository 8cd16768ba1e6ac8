"""A backend for a small telephony product: accounts, call recordings, webhooks, monitoring.

    domain/   what the product does: coroutines over ports; no framework and no driver
    ports/    how it reaches the world: database, object store, telephony, mail, password hashing
    asgi.py   the shell: HTTP in, HTTP out
    fakes/    the telephony provider, as a process of its own

`python -m examples.backend` starts it and says what to try.
"""
