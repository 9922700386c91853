"""Values: needs, pools, snapshots, decisions, plans, money. Pure: no I/O, no clock."""
