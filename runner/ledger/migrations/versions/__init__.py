"""One file for each step; the number is the ledger's version."""
