"""The base class of all operators' requests; see ``requests``."""

import msgspec


class Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", forbid_unknown_fields=True
):
    """A request, tagged ``operation``."""
