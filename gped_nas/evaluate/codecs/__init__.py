"""How far one set of networks is from another one: what a codec loses of a posterior.

Networks are known by their log-probabilities at some inputs; see ``networks.Networks``.
"""
