"""Rewards: how good a response is, in [0, 1], judged by its form and by real masks.

One file a kind, each a small pure function; `combined` joins them and is what the trainers call; `segmenting`
is the fast way from expressions to masks; `own` loads a user's.
"""
