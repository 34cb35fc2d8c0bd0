"""The subcommands: each module parses, calls one function, and prints."""
