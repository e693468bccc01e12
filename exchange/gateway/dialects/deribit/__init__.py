"""The Deribit dialect: that venue's API v2 over the native protocol, for clients that speak it.

``room`` has the routes; ``peer`` is one WebSocket and ``lines`` the sessions of HTTP callers;
``methods`` says what each method needs, ``trading`` and ``answers`` what it does, ``channels`` what
a subscriber is told; ``portray`` and ``instruments`` show things as the venue does, ``blotter``
remembers what only its clients ask for; ``gate`` knows callers; ``rpc``, ``params``, ``numbers``
and ``codes`` are its grammar.
"""
