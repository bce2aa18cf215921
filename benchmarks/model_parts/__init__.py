"""What model.py is made of: contestants, the skeleton of products, turns, rates, history."""
