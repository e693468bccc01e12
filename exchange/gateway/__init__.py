"""The gateway: connections, keys, requests to command records, events to reports."""
