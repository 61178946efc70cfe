"""Posteriors that a prior and an operator have together: in closed form, or learned."""
