"""The bm25 stage: rank each locale's products by the words they share with a query."""
