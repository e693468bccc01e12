"""``python -m exchange.cli`` is ``hourbook``."""

from exchange.command import main

main()
