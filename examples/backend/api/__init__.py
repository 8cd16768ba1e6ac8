"""The HTTP interface, whatever framework speaks it: a table of routes, each a coroutine from request to reply."""
