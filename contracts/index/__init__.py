"""The settlement index: from price observations to a month's final settlement price.

    methodology   the indices and their rules, from ``data/indices.toml``
    observations  reads a CSV file into observations; rejects each invalid one with a reason
    votes         screens a day's observations into one vote per provider and series
    anchors       each provider's own level and weight, frozen for a month
    fixing        computes a day's index from votes and anchors, or withholds it with a reason
    tape          the record of captures, anchors and fixings, and when each became known
    run           fixes days of a file onto a tape; revises and reproduces them
    settlement    the mean of a month, and the fallback ladder

Start at ``run.fix_through``. The rules in words: docs/reference/index-methodology.md.
"""
