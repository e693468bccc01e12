"""``python -m exchange.cli`` is ``hourbook``."""

from exchange.cli import main

main()
