"""The command line. Imports nothing, so that ``python -m exchange.cli`` is quick to where an
interrupt has its exit code; the commands come together in ``root``."""
