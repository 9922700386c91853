"""Real servers for the tests and benches: started on free loopback ports, their data in a temporary folder, ended by process id."""
