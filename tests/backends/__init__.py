"""Real backends for the tests: found, installed, started on loopback ports, and ended with the run."""
