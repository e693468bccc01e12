"""What every request to a market is made from; see ``requests``."""

import msgspec


class Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", forbid_unknown_fields=True
):
    """What every request has: the tag ``operation``."""
