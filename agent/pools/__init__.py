"""Worker pools: how they are declared, and the providers that launch and end their workers."""
