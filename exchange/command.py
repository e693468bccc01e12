"""The ``hourbook`` command. Separate from ``cli``, so that an interrupt has its exit code from the
first import on."""

import sys
from typing import Final

INTERRUPTED: Final = 130  # Exit.INTERRUPTED of cli.output, which is not imported yet


def main() -> None:
    """Run the command line."""
    try:
        from exchange.cli.root import main as command  # noqa: PLC0415

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
