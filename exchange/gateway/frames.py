"""aiohttp's names for what a socket carries, for whoever brings a link another socket than its."""

from aiohttp import WSMessage, WSMsgType

__all__ = ["WSMessage", "WSMsgType"]
