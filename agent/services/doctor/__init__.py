"""`orc doctor`: what may be wrong, and what to do about each."""
