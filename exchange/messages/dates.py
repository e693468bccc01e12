"""Business dates as the log has them: numbers of the form yyyymmdd."""

from datetime import date


def number_of(day: date) -> int:
    """Return the number of a date."""
    return day.year * 10_000 + day.month * 100 + day.day


def date_of(number: int) -> date:
    """Return the date of a number. ValueError: it is none."""
    try:
        return date(number // 10_000, number // 100 % 100, number % 100)
    except (ValueError, OverflowError) as wrong:
        raise ValueError(f"{number} is not a date of the form yyyymmdd") from wrong
