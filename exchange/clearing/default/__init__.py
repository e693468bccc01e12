"""A member's default: the default fund, the auction of its positions, the sharing of its loss."""
