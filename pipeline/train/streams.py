"""What each random stream of a training decides: its number stands behind the seed.

So no stream repeats another one's numbers, and a draw more in one changes nothing in the others.
"""

ORDER, NEGATIVES, DROPOUT, MINED, OTHERS, POSITIVES = range(6)
