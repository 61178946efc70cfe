"""Posteriors of a prior and an operator: in closed form, or learned."""
