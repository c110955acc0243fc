"""Replays recorded studies: proposers choose among students that are trained already."""
