"""The Deribit dialect: that venue's API v2 on top of the native protocol.

room                   the routes
peer, lines            one WebSocket; the native sessions of HTTP callers
methods                the table of methods, with parameters and required rights
trading, answers       methods that change orders; methods that only read
channels               subscriptions
portray, instruments   orders, trades, positions and instruments in the venue's form
blotter                orders and trades that only this dialect's clients query
gate                   authentication
rpc, params, numbers, codes   JSON-RPC, parameters, numbers, error codes
"""
