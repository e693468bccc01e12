"""The SDK: everything that a bot, a hedger or a trading desk needs on a Hourbook market.

aio, sync       the client, async and blocking; start at docs/tutorial.md
rest            HTTP: history, statements, keys
keys            signing
session         the state machine beneath both clients, without I/O
book            a local book that detects when it is wrong
strip           GPU-hours over months, exactly
hedging         hedge ratios, with how much they hedge
files           result files that appear only when complete
errors          all exceptions
bots            examples to run and to read
"""
