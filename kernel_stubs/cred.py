"""Who everything runs as (kernel/cred.c): one ordinary user."""

from __future__ import annotations

USER_ID = 1000
"""Of the user and the group."""
