"""How a network is trained: pure steps, and one loop that reads from top to bottom."""
