"""Measurements: each program prints one table and can write JSON. Ratios within one run; the machine is shared and noisy."""
