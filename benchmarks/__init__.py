"""Benchmarks of the fan-out: ``python -m benchmarks.fanout``, and of the layers without sockets."""
