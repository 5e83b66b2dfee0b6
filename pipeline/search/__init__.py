"""Search as the stages do: every system side by side, for any query, from what the stages wrote."""
