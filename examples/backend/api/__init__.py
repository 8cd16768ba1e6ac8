"""The HTTP interface, the same for every framework: a table of routes, each from a request to a reply."""
