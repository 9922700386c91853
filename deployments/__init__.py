"""What is deployed: pools, spot traces, the demo, set-up."""
