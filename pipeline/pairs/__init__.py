"""The pairs stage: judged products of train queries, none of a query that is evaluated."""
