"""The command line.  A command parses, calls one function and prints; nothing else lives here."""
