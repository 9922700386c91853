"""In the flow's process: what tasks and flows say of themselves, and the task runner that carries it. Nothing is decided here."""
