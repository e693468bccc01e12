"""The deterministic core: integers in, integers out. Rules: docs/reference/engine.md."""

try:
    from exchange.engine.core import Engine
except ImportError as error:  # a checkout whose core was not built yet
    raise ImportError("the compiled core is missing: run `make build`") from error

__all__ = ["Engine"]
