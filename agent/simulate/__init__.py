"""Workflows and spot traces through the same planner in virtual time; peers, bounds, what-if reports."""
