"""Output: text, progress bars, JSON Lines, Prometheus metrics, systemd status."""
