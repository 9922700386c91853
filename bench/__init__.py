"""Measurements: each program prints one table and can write JSON. Ratios within a run: machines are noisy."""
