"""What every message of the native protocol is made from; see ``wire``."""

from typing import Literal, TypeAlias

import msgspec

SideText: TypeAlias = Literal["buy", "sell"]


class Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=True
):
    """What every request has: the tag ``op``."""


class Response(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What every response has: the tag ``type``."""
