"""The system calls: one file a subject, each function registered under its number."""
