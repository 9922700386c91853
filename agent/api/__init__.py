"""The governor over HTTP: versioned routes, their schemas, who calls, and the one client."""
