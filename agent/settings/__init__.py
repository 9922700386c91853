"""Every setting, in sections; read once, from the environment and a file of settings, and checked."""

from agent.settings.environment import load
from agent.settings.settings import Mode, Settings

__all__ = ["Mode", "Settings", "load"]
