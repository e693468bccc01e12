"""The settlement index: from price observations to a month's final settlement price.

    methodology   the indices and their rules, from ``data/indices.toml``
    observations  a CSV file to observations, each unfit one rejected by name
    votes         a day's observations through the screens to one vote per provider and series
    anchors       each provider's own level and weight, frozen for a month
    fixing        votes and anchors to a day's number, or the reason why there is none
    tape          what was captured, anchored and fixed, and when it was known
    run           days of a file onto a tape; revisions; everything computed again
    settlement    the mean of a month, and the fallback ladder

Start at ``run.fix_through``. The rules in words: docs/reference/index-methodology.md.
"""
