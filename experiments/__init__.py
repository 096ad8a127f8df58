"""Claims about trained networks, one in each file: `python -m experiments` lists them."""
