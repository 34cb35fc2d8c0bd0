"""The library behind the commands: each function does what a command does, and prints nothing."""
