"""Rules as data: what people write (`*.yaml`), its schema, and the engine that runs them."""
