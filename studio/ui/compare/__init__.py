"""The parts of mode 3, Compare: lanes of pictures, what is laid over them, the scoreboard."""
