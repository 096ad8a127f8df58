"""How a network is trained: pure steps, and what they need. The loop is resnet_jax/train.py."""
