"""The public API: documents, answers, digest authentication."""
