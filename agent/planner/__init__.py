"""Planning: feasible → estimate → rank → pack, pure. `plan(snapshot)` is the only way in."""
