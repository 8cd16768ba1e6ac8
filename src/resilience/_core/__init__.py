"""Decisions: state machines and arithmetic, without clocks, locks, logs, user code or I/O."""
