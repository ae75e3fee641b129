"""What others wait for while somebody sends what costs a server much: ``python -m benchmarks.hostile``.

Beside what a hostile client sends (:mod:`benchmarks.hostile.inputs`) stand situations in which a server has to keep its
head: :mod:`benchmarks.hostile.situations`.
"""
