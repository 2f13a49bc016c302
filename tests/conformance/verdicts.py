"""Which verdict of kosoku is better than which.

A verdict is [behavior, behaviorClose, ...]. Compared part by part; through the proxy neither may be lower.
"""

BEHAVIOR = {"OK": 5, "NON-STRICT": 4, "INFORMATIONAL": 3, "UNIMPLEMENTED": 2, "FAILED": 1, "ERROR": 0}
CLOSE = {"OK": 3, "INFORMATIONAL": 2, "WRONG CODE": 1, "UNCLEAN": 1, "FAILED BY CLIENT": 1, "FAILED": 0}


def rank(verdict):
    return BEHAVIOR[verdict[0]], CLOSE[verdict[1]]


def no_worse(proxied, direct):
    return all(p >= d for p, d in zip(rank(proxied), rank(direct)))


def best(verdict):
    """Nothing direct can be better than this."""
    return rank(verdict) == (5, 3)


def passes(verdict):
    """In kosoku's own sense."""
    return BEHAVIOR[verdict[0]] >= 3 and CLOSE[verdict[1]] >= 2
