"""The parts of the Train mode: a folder's pictures, the plan, and a run as it goes."""
