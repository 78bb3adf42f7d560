"""Public API of the simulated server: digest authentication, resources, and documents."""
