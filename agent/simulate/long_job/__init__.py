"""Simulation of one long job over zones that sell spot instances: the planner, the published policies, the bound."""
