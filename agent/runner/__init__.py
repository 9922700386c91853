"""In the flow's process.

What tasks and flows say of themselves, and the task runner that carries it. Nothing is decided here.
"""
