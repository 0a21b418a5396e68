"""The baselines: plain loops that tests hold the suite's numbers to, and `bench.speed` its speed.

They share losses, specs and random numbers with the suite, and no code of networks or of loops.
"""
