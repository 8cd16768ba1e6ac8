"""How each server is run, and ended in our order.

At SIGTERM, whatever the server:

1. `/health/ready` says no. For `drain_notice` seconds more, requests are still accepted.
2. Nothing new is accepted; WebSockets and event streams are told that the service restarts (1012).
3. What runs has `GRACE` seconds to finish. What is left then is answered 503: come back in a moment.
4. What runs by itself stops, pools are closed, and the process ends, with exit code 0.
"""
