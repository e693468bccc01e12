"""Example bots. Each answers one question, runs by itself and can be awaited by other code.

maker    How do I quote both sides of many months and keep my inventory small?
hedger   How do I lock the price of my GPU-hours for a year?
taker    How do I trade now, and know what I got?
basis    How do I trade the gap between the cash contract and the physical one?
spreads  How do I arbitrage a calendar spread against its legs?
recorder How do I record the market's data, to run my bots on it later?
"""
