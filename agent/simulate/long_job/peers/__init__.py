"""Policies that others published or run, one a file, to be measured beside ours in the same simulator."""
