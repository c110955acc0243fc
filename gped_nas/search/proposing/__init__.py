"""Proposes genotypes by what is known before a training: the sampler ``costs_known``."""
