"""Tests of the house itself: floors, sizes, hops, no machine's paths."""
