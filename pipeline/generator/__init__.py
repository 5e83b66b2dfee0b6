"""The demo's shop: its words, its products and queries, and the rule that labels them."""
