"""Two thin wrappers that give any ASGI or WSGI application the library's errors, request ids and limits.

    from examples.adapters.asgi import ResilienceMiddleware      # or .wsgi
    app = ResilienceMiddleware(app, development=False)            # outermost, around everything else

Inside a request, `request_id()` is its id, and `note(decision)` has the rate-limit headers sent with the
answer, whether it is an error or not.
"""

from examples.adapters.exchange import note, request_id

__all__ = ["note", "request_id"]
