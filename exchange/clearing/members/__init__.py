"""Members and their accounts: house and clients, what moves between them, what a lender sees."""
