"""What the governor knows, as a state machine: events in, effects and snapshots out. Pure: no I/O, no clock."""
