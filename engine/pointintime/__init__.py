"""The point-in-time join: which stored row each row of a spine may see (rule), and the engines that find it."""
