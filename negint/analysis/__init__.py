"""Why languages interfere: gradient conflict and parameter sharing (Section 3.3)."""
