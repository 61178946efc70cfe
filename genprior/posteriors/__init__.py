"""Posteriors of a prior given a measurement: in closed form, or learned."""
