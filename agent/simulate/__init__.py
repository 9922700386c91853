"""Simulation: traces and workflows through the same planner that runs live; peers and clairvoyant bounds to stand beside."""
