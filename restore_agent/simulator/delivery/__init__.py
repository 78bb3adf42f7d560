"""Answers of delivery URLs."""
