"""Tasks of the flows, each governed, each useful by itself."""
