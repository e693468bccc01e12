"""Delivery of physical contracts: intent, assignment, invoice, daily slices, true-up, buy-in."""
