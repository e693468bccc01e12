"""The SDK: everything a bot, a hedger or a desk needs to trade on a Hourbook market.

aio, sync       the client, async and blocking; start at docs/tutorial.md
rest            what is asked rarely: history, statements, keys
keys            what signs
session         the state machine beneath both, without I/O
book            a local book that notices when it is wrong
strip           GPU-hours over months, exactly
files           results that appear whole
errors          everything that is raised
bots            examples to run and to read
"""
