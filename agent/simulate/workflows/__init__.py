"""Simulation of workflows on pools of workers: the governor's planner, its peers, bounds and hindsight."""
