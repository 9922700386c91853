"""ORC on the scheduler's own HTTP server."""
