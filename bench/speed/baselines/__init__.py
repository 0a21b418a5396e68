"""Baselines are plain loops: tests compare the suite's numbers with them, `bench.speed` its speed.

They share losses, specs and random numbers with the suite, but no networks or loops.
"""
