"""The way in and out: connections, keys, requests to command records, events to reports."""
