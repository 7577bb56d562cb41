"""The command line: one file a verb, which parses, calls a job, and prints."""
