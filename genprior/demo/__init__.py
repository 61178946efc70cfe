"""A page to try the package in a browser: what it does (`work`) and what it looks like (`page`)."""
