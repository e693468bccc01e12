"""A member's default: the fund, the auction of its book, and who bears the loss."""
