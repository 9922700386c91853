"""What is deployed: pools, weather, the demo, set-up."""
