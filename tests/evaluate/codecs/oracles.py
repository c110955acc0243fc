"""The slow definitions of distances between sets of networks: a loop a sum."""

import itertools
import math


def distance(first_MC, second_MC, least=-13.8):
    total = 0.0
    for one_C, other_C in zip(first_MC.tolist(), second_MC.tolist(), strict=True):
        for one, other in zip(one_C, other_C, strict=True):
            total += (max(one, least) - max(other, least)) ** 2
    return math.sqrt(total / len(first_MC))


def minus_distance(first_MC, second_MC):
    return -distance(first_MC, second_MC)


def gauss(bandwidth):
    def likeness(first_MC, second_MC):
        return math.exp(-(distance(first_MC, second_MC) ** 2) / (2 * bandwidth**2))

    return likeness


def number(likeness, first, first_weights, second, second_weights, drawn=(True, True)):
    """Mean k(x, x') + mean k(y, y') - 2 mean k(x, y) of weighted sets."""
    sets = [(first, first_weights, drawn[0]), (second, second_weights, drawn[1])]
    total = 0.0
    for networks, weights, is_drawn in sets:
        above = below = 0.0
        for i, j in itertools.product(range(len(networks)), repeat=2):
            if i == j and is_drawn:
                continue
            above += weights[i] * weights[j] * likeness(networks[i], networks[j])
            below += weights[i] * weights[j]
        total += above / below

    above = below = 0.0
    for i, j in itertools.product(range(len(first)), range(len(second))):
        above += first_weights[i] * second_weights[j] * likeness(first[i], second[j])
        below += first_weights[i] * second_weights[j]
    return total - 2 * above / below


def p_value(likeness, pooled, num_first, orders):
    """Share of orders whose number is at least that of the first one."""
    ones = [1.0] * len(pooled)
    numbers = []
    for order in orders:
        first = [pooled[i] for i in order[:num_first]]
        second = [pooled[i] for i in order[num_first:]]
        numbers.append(number(likeness, first, ones, second, ones))
    return sum(each >= numbers[0] - 1e-9 for each in numbers) / len(numbers)
